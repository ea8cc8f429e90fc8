// The operations as the dispatcher sees them.  LibTorch's stable ABI only, so that one binary serves torch 2.11 and
// newer.  Shapes for tracing and derivatives are registered from Python (napari_neuraldiffuser/core/networks/kernels/registration.py).
#include <torch/csrc/stable/library.h>

#include "binding/feature_loss.h"
#include "binding/group_norm.h"
#include "binding/guided_step.h"
#include "binding/prepare_image.h"

STABLE_TORCH_LIBRARY(neuraldiffuser, m) {
  m.def(
      "feature_loss_grad(Tensor[] features, Tensor[] targets, Tensor weights, float grad_scale=1.0) -> (Tensor, "
      "Tensor[])");
  m.def("guided_step(Tensor[] terms, float[] coefficients) -> Tensor");
  m.def("guided_step.table(Tensor[] terms, Tensor table) -> Tensor");
  m.def("prepare_image(Tensor image, int size, float[] mean, float[] std) -> Tensor");
  m.def("prepare_image_backward(Tensor grad, Tensor image, int size, float[] mean, float[] std) -> Tensor");
  m.def(
      "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps=1e-5, bool silu=True)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "group_norm_silu_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, int "
      "groups,"
      " bool silu=True) -> Tensor");
}

// one kernel per operation: it looks at the device of its tensors itself
#define ND_REGISTER(m)                                                      \
  m.impl("feature_loss_grad", TORCH_BOX(&nd::feature_loss_grad));           \
  m.impl("guided_step", TORCH_BOX(&nd::guided_step));                       \
  m.impl("guided_step.table", TORCH_BOX(&nd::guided_step_table));           \
  m.impl("prepare_image", TORCH_BOX(&nd::prepare_image));                   \
  m.impl("prepare_image_backward", TORCH_BOX(&nd::prepare_image_backward)); \
  m.impl("group_norm_silu", TORCH_BOX(&nd::group_norm_silu));               \
  m.impl("group_norm_silu_backward", TORCH_BOX(&nd::group_norm_silu_backward))

STABLE_TORCH_LIBRARY_IMPL(neuraldiffuser, CPU, m) { ND_REGISTER(m); }
#ifdef ND_CUDA
STABLE_TORCH_LIBRARY_IMPL(neuraldiffuser, CUDA, m) { ND_REGISTER(m); }
#endif
