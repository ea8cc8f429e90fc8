// feature_loss_grad: tensors to kernel arguments.
#pragma once

#include <tuple>

#include "layers.h"
#include "run.h"
#include "tensors.h"

namespace nd {
namespace {

std::tuple<Tensor, std::vector<Tensor>> feature_loss_grad(std::vector<Tensor> features, std::vector<Tensor> targets,
                                                          Tensor weights, double grad_scale) {
  check_layers(features, targets, weights, grad_scale);
  const Tensor& first = features[0];
  const ScalarType accumulator = accumulator_of(first);
  bool as_features = true;  // all targets in the features' type, or all in float32
  for (const Tensor& target : targets) as_features = as_features && target.scalar_type() == first.scalar_type();
  weights = contiguous(as_type(weights, accumulator));
  const Tensor loss = new_tensor(first, Sizes({first.size(0)}), accumulator);
  FeatureLoss args{};
  std::vector<Tensor> grads, kept;
  for (size_t i = 0; i < features.size(); ++i) {
    targets[i] = as_type(targets[i], as_features ? first.scalar_type() : accumulator);
    grads.push_back(new_tensor(first, features[i].sizes(), first.scalar_type()));
    args.layer[i] = make_layer(features[i], targets[i], grads[i], kept);
  }
  args.n_layers = int(features.size());
  args.batch = first.size(0);
  args.feature_type = type_of(first);
  args.target_type = type_of(targets[0]);
  args.weights = weights.const_data_ptr();
  args.weights_image = weights.size(0) == 1 ? 0 : args.n_layers;
  args.grad_scale = grad_scale;
  args.loss = loss.mutable_data_ptr();
  ND_RUN(feature_loss_grad, args, first);
  return {loss, grads};
}

}  // namespace
}  // namespace nd
