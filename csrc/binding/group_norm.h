// group_norm_silu and its backward: tensors to kernel arguments.
#pragma once

#include <tuple>
#include <utility>

#include "run.h"
#include "tensors.h"

namespace nd {
namespace {

// (B, C, ...) as a dense channels-last (B, C, H, W).
Tensor channels_last(const Tensor& x) {
  const auto n = [&](int64_t d) { return x.size(d); };
  if (x.dim() == 4) return contiguous(x, MemoryFormat::ChannelsLast);
  Tensor four = x.dim() == 2   ? torch::stable::reshape(x, Sizes({n(0), n(1), 1, 1}))
                : x.dim() == 3 ? torch::stable::reshape(x, Sizes({n(0), n(1), n(2), 1}))
                               : torch::stable::reshape(x, Sizes({n(0), n(1), n(2) * n(3), n(4)}));
  return contiguous(four, MemoryFormat::ChannelsLast);
}

// The other way: 4-D stays channels-last, everything else becomes contiguous in its own shape.
Tensor like_input(const Tensor& four, const Tensor& x) {
  return x.dim() == 4 ? four : contiguous(torch::stable::reshape(four, x.sizes()));
}

void check_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups) {
  must_be_floating(x, {"x"});
  ND_MUST(x.dim() >= 2 && x.dim() <= 5, "x must be (batch, channels, ...) with 2 to 5 dimensions, got ", shape_of(x),
          ".");
  ND_MUST(groups >= 1 && x.size(1) > 0 && x.size(1) % groups == 0, "groups must divide the ", x.size(1),
          " channels, got ", groups, ".");
  ND_MUST(x.size(0) == 0 || x.numel() > 0, "x must have at least one element per channel, got ", shape_of(x), ".");
  for (const auto& [name, t] : {std::pair<Name, const Tensor&>{{"weight"}, weight}, {{"bias"}, bias}}) {
    must_be_floating(t, name);
    must_be_beside(t, x, name, "x");
    ND_MUST(t.dim() == 1 && t.size(0) == x.size(1), name, " must be shaped (", x.size(1), "), got ", shape_of(t), ".");
  }
}

struct NormTensors {
  Tensor x, out, weight, bias, workspace;
};

NormTensors set_norm(GroupNorm& args, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const ScalarType accumulator = accumulator_of(x);
  const Tensor four = channels_last(x);
  NormTensors t{four, new_tensor(four, four.sizes(), x.scalar_type(), MemoryFormat::ChannelsLast),
                contiguous(as_type(weight, accumulator)), contiguous(as_type(bias, accumulator)), four};
  args.x = t.x.const_data_ptr();
  args.out = t.out.mutable_data_ptr();
  args.weight = t.weight.const_data_ptr();
  args.bias = t.bias.const_data_ptr();
  args.batch = four.size(0);
  args.channels = four.size(1);
  args.pixels = four.size(2) * four.size(3);
  args.type = type_of(x);
  t.workspace = new_tensor(four, Sizes({group_norm_workspace(args)}), ScalarType::Double);
  args.workspace = static_cast<double*>(t.workspace.mutable_data_ptr());
  return t;
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu(Tensor x, Tensor weight, Tensor bias, int64_t groups, double eps,
                                                   bool silu) {
  check_norm(x, weight, bias, groups);
  ND_MUST(std::isfinite(eps) && eps >= 0, "eps must be a finite number of at least 0, got ", eps, ".");
  GroupNorm args{};
  args.groups = groups;
  args.eps = eps;
  args.silu = silu;
  const NormTensors t = set_norm(args, x, weight, bias);
  const Tensor mean = new_tensor(x, Sizes({args.batch, groups}), accumulator_of(x));
  const Tensor rstd = new_tensor(x, Sizes({args.batch, groups}), accumulator_of(x));
  args.mean = mean.mutable_data_ptr();
  args.rstd = rstd.mutable_data_ptr();
  if (args.batch > 0) ND_RUN(group_norm, args, x);
  return {like_input(t.out, x), mean, rstd};
}

Tensor group_norm_silu_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias,
                                int64_t groups, bool silu) {
  check_norm(x, weight, bias, groups);
  must_be_floating(grad, {"grad"});
  must_be_beside(grad, x, {"grad"}, "x");
  must_have_shape(grad, x, {"grad"});
  for (const auto& [name, t] : {std::pair<Name, const Tensor&>{{"mean"}, mean}, {{"rstd"}, rstd}}) {
    must_be_beside(t, x, name, "x");
    ND_MUST(t.scalar_type() == accumulator_of(x) && t.dim() == 2 && t.size(0) == x.size(0) && t.size(1) == groups, name,
            " must be what group_norm_silu returned for x, shaped (", x.size(0), ", ", groups, "), got ", shape_of(t),
            ".");
  }
  GroupNorm args{};
  args.groups = groups;
  args.silu = silu;
  const NormTensors t = set_norm(args, x, weight, bias);
  const Tensor four = channels_last(as_type(grad, x.scalar_type())), means = contiguous(mean), rstds = contiguous(rstd);
  args.grad = four.const_data_ptr();
  args.mean = means.mutable_data_ptr();
  args.rstd = rstds.mutable_data_ptr();
  if (args.batch > 0) ND_RUN(group_norm_backward, args, x);
  return like_input(t.out, x);
}

}  // namespace
}  // namespace nd
