// What the binding asks of a device: one plain struct of raw pointers and sizes per operation, and one launcher.
// Everything has been checked before; a launcher returns nullptr, or a sentence when the device refuses.
#pragma once

#include <cstdint>

#include "formulas.h"

// instruction sets beyond the compiler's default are switched on by a pragma that only GCC has
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ND_X86_ISAS 1
#endif

namespace nd {

enum class Type : int { f32, f64, f16, bf16 };

constexpr int kMaxLayers = 24;  // what fits into the 4 KB of arguments that every GPU takes, once strides are packed
constexpr int kMaxTerms = 6;

// One layer of the feature loss.  `size`, `stride` of one image; `image_stride` 0 serves every image.
struct Layer {
  const void* feature;
  const void* target;
  void* grad;  // (batch, numel), contiguous, in the features' type
  Strided feature_map, target_map;
  int64_t feature_image, target_image;  // stride from image to image
  int64_t numel;                        // of one image
  bool linear;                          // both maps are the identity
};

struct FeatureLoss {
  Layer layer[kMaxLayers];
  int n_layers;
  int64_t batch;
  Type feature_type, target_type;  // target: the feature's type or f32
  const void* weights;             // (batch or 1, n_layers) in the accumulator's type, contiguous
  int64_t weights_image;           // 0 or n_layers
  double grad_scale;
  void* loss;  // (batch,) in the accumulator's type
};

// out = sum_i c_i term_i.  c from `coefficient`, or from `table` (images or 1, n_terms).
struct GuidedStep {
  int n_terms;
  const void* term[kMaxTerms];
  Type term_type[kMaxTerms];
  void* out;
  Type out_type;  // f64: every term is f64
  int64_t batch, per_image;
  double coefficient[kMaxTerms];
  const double* table;  // on the device of the terms, or nullptr
  int64_t table_images;
};

// forward: image -> out (batch, 3, size, size) contiguous.  backward: image, grad -> out with strides out_stride.
struct PrepareImage {
  const void* image;
  int64_t image_stride[4];  // batch, channel, row, column, in elements
  const void* grad;         // backward only
  int64_t grad_stride[4];
  void* out;
  int64_t out_stride[4];
  int64_t batch, height, width, size;
  double mean[3], std[3];
  Type type;
};

// Channels-last: x, grad and out are (batch, pixels, channels), dense.
struct GroupNorm {
  const void* x;
  const void* grad;  // backward only
  void* out;
  const void* weight;  // (channels,), accumulator's type
  const void* bias;
  void* mean;  // (batch, groups), accumulator's type; written by forward, read by backward
  void* rstd;
  double* workspace;  // group_norm_workspace() doubles
  int64_t batch, pixels, channels, groups;
  double eps;
  bool silu;
  Type type;
};

// Pixels per partial sum, the same on every device and for every number of threads.
ND_HD int64_t group_norm_rows(const GroupNorm& a) {
  const int64_t rows = 8192 / a.channels;
  return rows < 1 ? 1 : rows;
}
ND_HD int64_t group_norm_chunks(const GroupNorm& a) {
  return (a.pixels + group_norm_rows(a) - 1) / group_norm_rows(a);
}
// mean and m2 (forward), or the two sums (backward), of every (image, chunk, group)
ND_HD int64_t group_norm_workspace(const GroupNorm& a) {
  return 2 * a.batch * group_norm_chunks(a) * a.groups;
}

// Runs body(begin, end, context) over [0, n) in parts of at least `grain`, on as many threads as torch is set to.
using Body = void (*)(int64_t begin, int64_t end, void* context);
using Parallel = void (*)(int64_t n, int64_t grain, Body body, void* context);

struct CpuKernels {
  const char* isa;
  void (*feature_loss_grad)(const FeatureLoss&, Parallel);
  void (*guided_step)(const GuidedStep&, Parallel);
  void (*prepare_image)(const PrepareImage&, Parallel);
  void (*prepare_image_backward)(const PrepareImage&, Parallel);
  void (*group_norm)(const GroupNorm&, Parallel);
  void (*group_norm_backward)(const GroupNorm&, Parallel);
};

// The best of the compiled instruction sets that this processor has.
const CpuKernels& cpu_kernels();

// kernels.cu; `stream` is a cudaStream_t
const char* feature_loss_grad_cuda(const FeatureLoss&, void* stream);
const char* guided_step_cuda(const GuidedStep&, void* stream);
const char* prepare_image_cuda(const PrepareImage&, void* stream);
const char* prepare_image_backward_cuda(const PrepareImage&, void* stream);
const char* group_norm_cuda(const GroupNorm&, void* stream);
const char* group_norm_backward_cuda(const GroupNorm&, void* stream);

}  // namespace nd
