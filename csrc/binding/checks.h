// Argument checks of the operations.  Every message names the argument, the rule and what was given.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.h"

namespace nd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Args> [[noreturn]] void fail(const Args&... message) {
  std::ostringstream text;
  (text << ... << message);
  throw std::runtime_error(text.str());
}

// The message is put together only where the rule is broken: a small operation takes less time than its sentence.
#define ND_MUST(holds, ...)                \
  do {                                     \
    if (!(holds)) ::nd::fail(__VA_ARGS__); \
  } while (0)

// Name of an argument, or of one item of a list.
struct Name {
  const char* text;
  int64_t index = -1;
};
inline std::ostream& operator<<(std::ostream& stream, const Name& name) {
  stream << name.text;
  if (name.index >= 0) stream << "[" << name.index << "]";
  return stream;
}

inline std::string shape_of(const Tensor& t) {
  std::ostringstream text;
  text << "(";
  for (int64_t d = 0; d < t.dim(); ++d) text << (d ? ", " : "") << t.size(d);
  text << ")";
  return text.str();
}

inline std::string device_of(const Tensor& t) {
  return t.is_cpu() ? "cpu" : "cuda:" + std::to_string(t.get_device_index());
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

inline bool is_floating(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
    case ScalarType::Double:
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return true;
    default:
      return false;
  }
}

inline void must_be_floating(const Tensor& t, Name name) {
  ND_MUST(is_floating(t), name, " must be float32, bfloat16, float16 or float64, got ",
          torch::headeronly::toString(t.scalar_type()), ". Convert it with .to(torch.float32).");
  ND_MUST(t.layout() == torch::headeronly::Layout::Strided, name,
          " must be a dense tensor, got a sparse one. Use .to_dense().");
}

inline void must_be_beside(const Tensor& t, const Tensor& first, Name name, const char* whom) {
  ND_MUST(same_device(t, first), name, " must be on ", device_of(first), " like ", whom, ", got ", device_of(t), ".");
}

inline void must_have_shape(const Tensor& t, const Tensor& like, Name name) {
  bool same = t.dim() == like.dim();
  for (int64_t d = 0; same && d < t.dim(); ++d) same = t.size(d) == like.size(d);
  ND_MUST(same, name, " must be shaped ", shape_of(like), ", got ", shape_of(t), ".");
}

inline Type type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return Type::f64;
    case ScalarType::Half:
      return Type::f16;
    case ScalarType::BFloat16:
      return Type::bf16;
    default:
      return Type::f32;
  }
}

inline ScalarType accumulator_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace nd
