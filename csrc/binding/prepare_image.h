// prepare_image and its backward: tensors to kernel arguments.
#pragma once

#include "run.h"
#include "tensors.h"

namespace nd {
namespace {

constexpr int64_t kMaxSide = 1 << 20;

PrepareImage check_image(const Tensor& image, int64_t size, const std::vector<double>& mean,
                         const std::vector<double>& std) {
  must_be_floating(image, {"image"});
  ND_MUST(image.dim() == 4 && image.size(1) == 3 && image.size(2) > 0 && image.size(3) > 0,
          "image must be shaped (B, 3, H, W) with H and W above 0, got ", shape_of(image), ".");
  ND_MUST(size >= 1 && size <= kMaxSide, "size must be at least 1 pixel and at most ", kMaxSide, ", got ", size, ".");
  ND_MUST(mean.size() == 3, "mean must be 3 numbers, got ", mean.size(), ".");
  ND_MUST(std.size() == 3, "std must be 3 numbers, got ", std.size(), ".");
  PrepareImage args{};
  for (int c = 0; c < 3; ++c) {
    ND_MUST(std::isfinite(mean[c]), "mean must be 3 finite numbers, got ", mean[c], ".");
    ND_MUST(std::isfinite(std[c]) && std[c] > 0, "std must be 3 numbers above 0, got ", std[c], ".");
    args.mean[c] = mean[c];
    args.std[c] = std[c];
  }
  args.image = image.const_data_ptr();
  args.batch = image.size(0);
  args.height = image.size(2);
  args.width = image.size(3);
  args.size = size;
  args.type = type_of(image);
  return args;
}

void set_strides(int64_t* to, const Tensor& t) {
  for (int d = 0; d < 4; ++d) to[d] = t.stride(d);
}

Tensor prepare_image(Tensor image, int64_t size, std::vector<double> mean, std::vector<double> std) {
  PrepareImage args = check_image(image, size, mean, std);
  const Tensor out = new_tensor(image, Sizes({args.batch, 3, size, size}), image.scalar_type());
  args.out = out.mutable_data_ptr();
  set_strides(args.image_stride, image);
  set_strides(args.out_stride, out);
  if (args.batch > 0) ND_RUN(prepare_image, args, image);
  return out;
}

Tensor prepare_image_backward(Tensor grad, Tensor image, int64_t size, std::vector<double> mean,
                              std::vector<double> std) {
  PrepareImage args = check_image(image, size, mean, std);
  must_be_floating(grad, {"grad"});
  must_be_beside(grad, image, {"grad"}, "image");
  ND_MUST(grad.dim() == 4 && grad.size(0) == args.batch && grad.size(1) == 3 && grad.size(2) == size &&
              grad.size(3) == size,
          "grad must be shaped (", args.batch, ", 3, ", size, ", ", size, "), got ", shape_of(grad), ".");
  grad = as_type(grad, image.scalar_type());
  const bool last = !image.is_contiguous() && args.batch > 0 && is_channels_last(image);
  const Tensor out = new_tensor(image, image.sizes(), image.scalar_type(),
                                last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  args.grad = grad.const_data_ptr();
  args.out = out.mutable_data_ptr();
  set_strides(args.image_stride, image);
  set_strides(args.grad_stride, grad);
  set_strides(args.out_stride, out);
  if (args.batch > 0) ND_RUN(prepare_image_backward, args, image);
  return out;
}

}  // namespace
}  // namespace nd
