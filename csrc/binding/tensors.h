// Tensors made and looked at by every operation.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include "checks.h"

namespace nd {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::contiguous;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

int32_t dtype_code(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    default:
      return aoti_torch_dtype_float32();
  }
}

// Memory order of the dimensions, innermost first.
constexpr int kLastOrder[] = {1, 3, 2, 0};

// Uninitialised; the C call takes a third of the time of torch::stable::empty, which looks the operation up by name.
Tensor new_tensor(const Tensor& like, Sizes size, ScalarType type, MemoryFormat format = MemoryFormat::Contiguous) {
  const int64_t n = int64_t(size.size());
  int64_t strides[16], next = 1;
  ND_MUST(n <= 16, "tensors must have at most 16 dimensions, got ", n, ".");
  for (int64_t i = 0; i < n; ++i) {
    const int64_t d = format == MemoryFormat::ChannelsLast ? kLastOrder[i] : n - 1 - i;
    strides[d] = next;
    next *= size[size_t(d)] > 0 ? size[size_t(d)] : 1;
  }
  const int32_t device = like.is_cpu() ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda();
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(n, size.data(), strides, dtype_code(type), device,
                                                         like.is_cpu() ? 0 : like.get_device_index(), &handle));
  return Tensor(handle);
}

Tensor as_type(const Tensor& t, ScalarType type) { return t.scalar_type() == type ? t : torch::stable::to(t, type); }

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && t.stride(1) == 1 && t.stride(3) == t.size(1) && t.stride(2) == t.size(1) * t.size(3) &&
         t.stride(0) == t.numel() / t.size(0);
}

}  // namespace
}  // namespace nd
