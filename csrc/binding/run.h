// Hands a checked operation to the device of its tensors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "checks.h"

#ifdef ND_CUDA
// absent from a torch without CUDA, where no tensor leads to a call of it
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream) __attribute__((weak));
#endif

namespace nd {

inline void torch_parallel(int64_t n, int64_t grain, Body body, void* context) {
  if (n <= grain) {
    if (n > 0) body(0, n, context);
    return;
  }
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(begin, end, context); });
}

#ifdef ND_CUDA
template <class Args> void run_cuda(const char* (*launch)(const Args&, void*), const Args& args, const Tensor& on) {
  const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
  void* stream = nullptr;
  ND_MUST(aoti_torch_get_current_cuda_stream != nullptr,
          "the tensors' device must be usable, got cuda without torch's CUDA.");
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
  const char* problem = launch(args, stream);
  ND_MUST(problem == nullptr, "the CUDA kernel must launch, got: ", problem ? problem : "");
}
#define ND_RUN(name, args, on)                  \
  do {                                          \
    if ((on).is_cuda())                         \
      run_cuda(name##_cuda, args, on);          \
    else                                        \
      cpu_kernels().name(args, torch_parallel); \
  } while (0)
#else
#define ND_RUN(name, args, on) cpu_kernels().name(args, torch_parallel)
#endif

}  // namespace nd
