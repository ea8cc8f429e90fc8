// The operations as the dispatcher sees them: schema, checks, output allocation, call.  LibTorch's stable ABI only, so
// that one binary serves torch 2.11 and newer.  Shapes for tracing and derivatives: napari_neuraldiffuser/core/kernels.py.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "layers.h"
#include "run.h"

namespace nd {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::contiguous;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

int32_t dtype_code(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return aoti_torch_dtype_float64();
    case ScalarType::Half: return aoti_torch_dtype_float16();
    case ScalarType::BFloat16: return aoti_torch_dtype_bfloat16();
    default: return aoti_torch_dtype_float32();
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

Tensor as_type(const Tensor& t, ScalarType type) {
  return t.scalar_type() == type ? t : torch::stable::to(t, type);
}

// ---- feature_loss_grad -----------------------------------------------------------------------------------------

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

// ---- guided_step -----------------------------------------------------------------------------------------------

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && t.stride(1) == 1 && t.stride(3) == t.size(1) && t.stride(2) == t.size(1) * t.size(3) &&
         t.stride(0) == t.numel() / t.size(0);
}

void check_terms(const std::vector<Tensor>& terms) {
  ND_MUST(!terms.empty() && terms.size() <= size_t(kMaxTerms), "terms must be 1 to ", kMaxTerms, " tensors, got ", terms.size(), ".");
  for (size_t i = 0; i < terms.size(); ++i) {
    const Name name{"terms", int64_t(i)};
    must_be_floating(terms[i], name);
    must_be_beside(terms[i], terms[0], name, "terms[0]");
    must_have_shape(terms[i], terms[0], name);
    ND_MUST((terms[i].scalar_type() == ScalarType::Double) == (terms[0].scalar_type() == ScalarType::Double), name,
         " must be float64 if and only if terms[0] is. Convert one of them.");
  }
}

// Brings all terms into the memory format of the first and allocates the output.
Tensor set_terms(GuidedStep& args, std::vector<Tensor>& terms) {
  const bool plain = terms[0].is_contiguous() || !is_channels_last(terms[0]);
  const MemoryFormat format = plain ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
  const Tensor out = new_tensor(terms[0], terms[0].sizes(), terms[0].scalar_type(), format);
  args.n_terms = int(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!plain || !terms[i].is_contiguous()) terms[i] = contiguous(terms[i], format);
    args.term[i] = terms[i].const_data_ptr();
    args.term_type[i] = type_of(terms[i]);
  }
  args.out = out.mutable_data_ptr();
  args.out_type = type_of(terms[0]);
  args.batch = 1;
  args.per_image = out.numel();
  return out;
}

Tensor guided_step(std::vector<Tensor> terms, std::vector<double> coefficients) {
  check_terms(terms);
  ND_MUST(coefficients.size() == terms.size(), "coefficients must be one per term (", terms.size(), "), got ",
       coefficients.size(), ".");
  GuidedStep args{};
  for (size_t i = 0; i < coefficients.size(); ++i) {
    ND_MUST(std::isfinite(coefficients[i]), Name{"coefficients", int64_t(i)}, " must be a finite number, got ", coefficients[i], ".");
    args.coefficient[i] = coefficients[i];
  }
  const Tensor out = set_terms(args, terms);
  if (args.per_image > 0) ND_RUN(guided_step, args, terms[0]);
  return out;
}

void check_table(const Tensor& table, const Tensor& index, const std::vector<Tensor>& terms) {
  const Tensor& first = terms[0];
  ND_MUST(first.dim() >= 1, "terms[0] must be (batch, ...) when a table is used, got a single number.");
  ND_MUST(table.scalar_type() == ScalarType::Double, "table must be float64, so that folded coefficients keep their digits.");
  ND_MUST(table.dim() == 3 && table.size(0) > 0 && (table.size(1) == 1 || table.size(1) == first.size(0)) &&
           table.size(2) == int64_t(terms.size()),
       "table must be shaped (steps, ", first.size(0), " or 1, ", terms.size(), "), got ", shape_of(table), ".");
  ND_MUST(index.scalar_type() == ScalarType::Long && index.numel() == 1, "index must be one int64 number, got ",
       torch::headeronly::toString(index.scalar_type()), " ", shape_of(index), ".");
  must_be_beside(table, first, {"table"}, "the terms");
  must_be_beside(index, first, {"index"}, "the terms");
}

// On the host the values themselves can be looked at.
void check_row(const GuidedStep& args) {
  ND_MUST(*args.index >= 0 && *args.index < args.table_rows, "index must be in [0, ", args.table_rows, "), got ", *args.index, ".");
  const int64_t row = args.table_images * args.n_terms;
  for (int64_t i = 0; i < row; ++i)
    ND_MUST(std::isfinite(args.table[*args.index * row + i]), "table must hold finite numbers, got ",
         args.table[*args.index * row + i], " in row ", *args.index, ".");
}

Tensor guided_step_table(std::vector<Tensor> terms, Tensor table, Tensor index) {
  check_terms(terms);
  check_table(table, index, terms);
  GuidedStep args{};
  const Tensor out = set_terms(args, terms);
  table = contiguous(table);
  args.batch = terms[0].size(0);
  args.per_image = args.batch ? out.numel() / args.batch : 0;
  args.table = static_cast<const double*>(table.const_data_ptr());
  args.index = static_cast<const int64_t*>(index.const_data_ptr());
  args.table_rows = table.size(0);
  args.table_images = table.size(1);
  if (terms[0].is_cpu()) check_row(args);
  if (out.numel() > 0) ND_RUN(guided_step, args, terms[0]);
  return out;
}

// ---- prepare_image ---------------------------------------------------------------------------------------------

constexpr int64_t kMaxSide = 1 << 20;

PrepareImage check_image(const Tensor& image, int64_t size, const std::vector<double>& mean, const std::vector<double>& std) {
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

Tensor prepare_image_backward(Tensor grad, Tensor image, int64_t size, std::vector<double> mean, std::vector<double> std) {
  PrepareImage args = check_image(image, size, mean, std);
  must_be_floating(grad, {"grad"});
  must_be_beside(grad, image, {"grad"}, "image");
  ND_MUST(grad.dim() == 4 && grad.size(0) == args.batch && grad.size(1) == 3 && grad.size(2) == size && grad.size(3) == size,
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

// ---- group_norm_silu -------------------------------------------------------------------------------------------

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
  ND_MUST(x.dim() >= 2 && x.dim() <= 5, "x must be (batch, channels, ...) with 2 to 5 dimensions, got ", shape_of(x), ".");
  ND_MUST(groups >= 1 && x.size(1) > 0 && x.size(1) % groups == 0, "groups must divide the ", x.size(1), " channels, got ", groups, ".");
  ND_MUST(x.size(0) == 0 || x.numel() > 0, "x must have at least one element per channel, got ", shape_of(x), ".");
  for (const auto& [name, t] : {std::pair<Name, const Tensor&>{{"weight"}, weight}, {{"bias"}, bias}}) {
    must_be_floating(t, name);
    must_be_beside(t, x, name, "x");
    ND_MUST(t.dim() == 1 && t.size(0) == x.size(1), name, " must be shaped (", x.size(1), "), got ", shape_of(t), ".");
  }
}

struct NormTensors { Tensor x, out, weight, bias, workspace; };

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

std::tuple<Tensor, Tensor, Tensor> group_norm_silu(Tensor x, Tensor weight, Tensor bias, int64_t groups, double eps, bool silu) {
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
         " must be what group_norm_silu returned for x, shaped (", x.size(0), ", ", groups, "), got ", shape_of(t), ".");
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

STABLE_TORCH_LIBRARY(neuraldiffuser, m) {
  m.def("feature_loss_grad(Tensor[] features, Tensor[] targets, Tensor weights, float grad_scale=1.0) -> (Tensor, Tensor[])");
  m.def("guided_step(Tensor[] terms, float[] coefficients) -> Tensor");
  m.def("guided_step.table(Tensor[] terms, Tensor table, Tensor index) -> Tensor");
  m.def("prepare_image(Tensor image, int size, float[] mean, float[] std) -> Tensor");
  m.def("prepare_image_backward(Tensor grad, Tensor image, int size, float[] mean, float[] std) -> Tensor");
  m.def("group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps=1e-5, bool silu=True)"
        " -> (Tensor, Tensor, Tensor)");
  m.def("group_norm_silu_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, int groups,"
        " bool silu=True) -> Tensor");
}

// one kernel per operation: it looks at the device of its tensors itself
#define ND_REGISTER(m)                                                            \
  m.impl("feature_loss_grad", TORCH_BOX(&nd::feature_loss_grad));                 \
  m.impl("guided_step", TORCH_BOX(&nd::guided_step));                             \
  m.impl("guided_step.table", TORCH_BOX(&nd::guided_step_table));                 \
  m.impl("prepare_image", TORCH_BOX(&nd::prepare_image));                         \
  m.impl("prepare_image_backward", TORCH_BOX(&nd::prepare_image_backward));       \
  m.impl("group_norm_silu", TORCH_BOX(&nd::group_norm_silu));                     \
  m.impl("group_norm_silu_backward", TORCH_BOX(&nd::group_norm_silu_backward))

STABLE_TORCH_LIBRARY_IMPL(neuraldiffuser, CPU, m) { ND_REGISTER(m); }
#ifdef ND_CUDA
STABLE_TORCH_LIBRARY_IMPL(neuraldiffuser, CUDA, m) { ND_REGISTER(m); }
#endif
