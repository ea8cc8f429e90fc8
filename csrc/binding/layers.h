// Feature-loss arguments: checks, and strides brought into the few dimensions that the kernels walk.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "checks.h"

namespace nd {

inline void check_layer(const std::vector<Tensor>& features, const Tensor& target, size_t i) {
  const Tensor &feature = features[i], &first = features[0];
  const Name name{"features", int64_t(i)}, target_name{"targets", int64_t(i)};
  must_be_floating(feature, name);
  must_be_floating(target, target_name);
  ND_MUST(feature.scalar_type() == first.scalar_type(), name, " must have the dtype of features[0]. Convert it.");
  must_be_beside(feature, first, name, "features[0]");
  must_be_beside(target, first, target_name, "the features");
  ND_MUST(feature.dim() >= 2 && feature.size(0) == first.size(0) && feature.numel() > 0, name, " must be (",
          first.size(0), ", ...) and not empty, got ", shape_of(feature), ".");
  bool same = target.dim() == feature.dim() && (target.size(0) == 1 || target.size(0) == feature.size(0));
  for (int64_t d = 1; same && d < feature.dim(); ++d) same = target.size(d) == feature.size(d);
  ND_MUST(same, target_name, " must be shaped (", feature.size(0), " or 1, ...) like ", shape_of(feature), ", got ",
          shape_of(target), ". Targets and features must come from the same model and layers.");
}

inline void check_layers(const std::vector<Tensor>& features, const std::vector<Tensor>& targets, const Tensor& weights,
                         double grad_scale) {
  ND_MUST(!features.empty(), "features must be at least one layer, got none.");
  ND_MUST(features.size() <= size_t(kMaxLayers), "features must be at most ", kMaxLayers, " layers, got ",
          features.size(), ".");
  ND_MUST(features.size() == targets.size(), "targets must be one per layer (", features.size(), "), got ",
          targets.size(), ".");
  ND_MUST(features[0].dim() >= 2, "features[0] must be (batch, ...), got ", shape_of(features[0]), ".");
  for (size_t i = 0; i < features.size(); ++i) check_layer(features, targets[i], i);
  must_be_floating(weights, {"weights"});
  must_be_beside(weights, features[0], {"weights"}, "the features");
  const int64_t batch = features[0].size(0), n = int64_t(features.size());
  ND_MUST(weights.dim() == 2 && weights.size(1) == n && (weights.size(0) == 1 || weights.size(0) == batch),
          "weights must be shaped (", batch, " or 1, ", n, "), got ", shape_of(weights),
          ". Give one row for all images or one per image.");
  int exponent = 0;
  ND_MUST(std::isfinite(grad_scale) && grad_scale > 0 && std::frexp(grad_scale, &exponent) == 0.5,
          "grad_scale must be a power of two above 0, got ", grad_scale, ". Others would round the gradient.");
}

struct Dimension {
  int64_t size, feature, target;
};

// Per-image dimensions from the outermost, without extents of 1, neighbours joined where both tensors allow it.
inline std::vector<Dimension> joined_dimensions(const Tensor& feature, const Tensor& target) {
  std::vector<Dimension> dims;
  for (int64_t d = 1; d < feature.dim(); ++d) {
    const Dimension next{feature.size(d), feature.stride(d), target.stride(d)};
    if (next.size == 1) continue;
    if (!dims.empty() && dims.back().feature == next.size * next.feature &&
        dims.back().target == next.size * next.target)
      dims.back() = {dims.back().size * next.size, next.feature, next.target};
    else
      dims.push_back(next);
  }
  return dims;
}

inline void set_maps(Layer& layer, const std::vector<Dimension>& dims) {
  for (int d = 0; d < kDims; ++d) {
    layer.feature_map.size[d] = layer.target_map.size[d] = 1;
    layer.feature_map.stride[d] = layer.target_map.stride[d] = 0;
  }
  const int offset = kDims - int(dims.size());
  for (size_t d = 0; d < dims.size(); ++d) {
    layer.feature_map.size[offset + d] = layer.target_map.size[offset + d] = dims[d].size;
    layer.feature_map.stride[offset + d] = dims[d].feature;
    layer.target_map.stride[offset + d] = dims[d].target;
  }
  layer.linear = dims.empty() || (dims.size() == 1 && dims[0].feature == 1 && dims[0].target == 1);
}

// Tensors must outlive the call: what had to be copied is put into `kept`.
inline Layer make_layer(Tensor feature, Tensor target, const Tensor& grad, std::vector<Tensor>& kept) {
  std::vector<Dimension> dims = joined_dimensions(feature, target);
  if (dims.size() > size_t(kDims)) {
    kept.push_back(feature = torch::stable::contiguous(feature));
    kept.push_back(target = torch::stable::contiguous(target));
    dims = joined_dimensions(feature, target);
  }
  Layer layer{};
  layer.feature = feature.const_data_ptr();
  layer.target = target.const_data_ptr();
  layer.grad = grad.mutable_data_ptr();
  layer.feature_image = feature.stride(0);
  layer.target_image = target.size(0) == 1 ? 0 : target.stride(0);
  layer.numel = feature.numel() / feature.size(0);
  set_maps(layer, dims);
  return layer;
}

}  // namespace nd
