// The Python module of the same shared library: what was built, and the host-side numbers that tests compare.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "kernels.h"

namespace py = pybind11;

#ifndef ND_VERSION
#define ND_VERSION "unknown"
#endif
#ifndef ND_TORCH_BUILT
#define ND_TORCH_BUILT "unknown"
#endif
#ifndef ND_SANITIZE
#define ND_SANITIZE ""
#endif
#ifndef ND_CUDA_ARCHITECTURES
#define ND_CUDA_ARCHITECTURES ""
#endif

namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

py::dict build_info() {
  py::dict info;
  info["version"] = ND_VERSION;
  info["compiler"] = __VERSION__;
#ifdef ND_CUDA
  info["cuda"] = ND_CUDA_VERSION;
#else
  info["cuda"] = py::none();
#endif
  info["architectures"] = words(ND_CUDA_ARCHITECTURES);
  info["torch_target"] = "2.11";
  info["torch_built"] = ND_TORCH_BUILT;
  info["sanitize"] = ND_SANITIZE;
  info["isa"] = nd::cpu_kernels().isa;
#ifdef ND_X86_ISAS
  info["isas"] = words("baseline v3 v4");
#else
  info["isas"] = words("baseline");
#endif
  return info;
}

std::vector<std::pair<int64_t, std::vector<double>>> filter_taps(int64_t n_in, int64_t n_out) {
  if (n_in < 1 || n_out < 1) throw py::value_error("n_in and n_out must be at least 1 pixel.");
  const nd::Axis axis = nd::make_axis(n_in, n_out);
  std::vector<std::pair<int64_t, std::vector<double>>> taps;
  for (int64_t i = 0; i < n_out; ++i) {
    std::vector<double> weights;
    const double total = nd::tap_total(axis, i);
    for (int64_t j = nd::tap_begin(axis, i); j < nd::tap_end(axis, i); ++j)
      weights.push_back(nd::tap_weight(axis, i, j) / total);
    taps.emplace_back(nd::tap_begin(axis, i), weights);
  }
  return taps;
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
  m.doc() = "Compiled kernels of napari-neuraldiffuser; importing it registers torch.ops.neuraldiffuser.";
  m.def("build_info", &build_info, "What was compiled, for which devices, and the CPU instruction set in use.");
  m.def("filter_taps", &filter_taps, py::arg("n_in"), py::arg("n_out"),
        "First input pixel and normalised weights of every output pixel of the antialiased resize.");
}
