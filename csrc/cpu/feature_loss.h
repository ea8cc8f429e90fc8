// feature_loss_grad: partial sums over chunks of fixed size, added in a fixed order, so that neither the number of
// threads nor the batch changes a bit.
#pragma once

namespace nd {
namespace ND_ISA {

constexpr int64_t kFeatureChunk = 4096, kFeatureBlock = 512;
constexpr int64_t kStreamBytes = 4 << 20;  // of gradients: more does not stay in the cache until somebody reads it

// Weighted differences of one contiguous stretch; returns the sum of their squares.
template <class T, class G, bool kStream = false> ND_HD double feature_stretch(const T* feature, const G* target,
                                                                               T* grad, int64_t n,
                                                                               typename Accumulator<T>::type factor) {
  using S = Simd<typename Accumulator<T>::type>;
  constexpr int kUnroll = 4, kStep = kUnroll * S::kLanes;
  typename S::V sum[kUnroll] = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep)
    for (int k = 0; k < kUnroll; ++k) {
      const int64_t at = i + k * S::kLanes;
      const auto d = load(feature + at) - load(target + at);
      sum[k] += d * d;
      if constexpr (kStream)
        stream(grad + at, feature_gradient(d, factor));
      else
        store(grad + at, feature_gradient(d, factor));
    }
  for (; i < n; i += S::kLanes) {
    const int64_t count = smaller(n - i, S::kLanes);
    const auto d = load_part(feature + i, count) - load_part(target + i, count);
    sum[0] += d * d;
    store_part(grad + i, feature_gradient(d, factor), count);
  }
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Both in bfloat16: a 32-bit lane holds two of them, so that nothing is widened or packed.  No check for NaN when
// rounding: one that comes from a bfloat16 ends in 16 zeros and nothing is carried into its exponent.
ND_HD U32 rounded_pair(VF v) {
  const U32 u = bit_cast<U32>(v);
  return u + 0x7fffu + ((u >> 16) & 1u);
}

ND_HD void add_pairs(const bfloat_t* feature, const bfloat_t* target, bfloat_t* grad, float factor, VF* sum) {
  constexpr uint32_t kHigh = 0xffff0000u;
  const U32 f = raw_load<U32>(feature), g = raw_load<U32>(target);
  const VF low = bit_cast<VF>(U32(f << 16)) - bit_cast<VF>(U32(g << 16));
  const VF high = bit_cast<VF>(U32(f & kHigh)) - bit_cast<VF>(U32(g & kHigh));
  sum[0] += low * low;
  sum[1] += high * high;
  const U32 out =
      (rounded_pair(feature_gradient(low, factor)) >> 16) | (rounded_pair(feature_gradient(high, factor)) & kHigh);
  memcpy(grad, &out, sizeof(out));
}

ND_HD double feature_stretch(const bfloat_t* feature, const bfloat_t* target, bfloat_t* grad, int64_t n,
                              float factor) {
  constexpr int64_t kPairs = 2 * Simd<float>::kLanes;
  VF sum[4] = {};
  int64_t i = 0;
  for (; i + 2 * kPairs <= n; i += 2 * kPairs) {
    add_pairs(feature + i, target + i, grad + i, factor, sum);
    add_pairs(feature + i + kPairs, target + i + kPairs, grad + i + kPairs, factor, sum + 2);
  }
  const double rest = feature_stretch<bfloat_t, bfloat_t>(feature + i, target + i, grad + i, n - i, factor);
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

template <class T> ND_HD void gather(const T* from, const Strided& map, int64_t begin, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[element_offset(map, begin + i)];
}

template <class T, class G>
double feature_chunk(const Layer& layer, int64_t image, int64_t begin, int64_t end, double factor, bool streamed) {
  using A = typename Accumulator<T>::type;
  const T* feature = static_cast<const T*>(layer.feature) + image * layer.feature_image;
  const G* target = static_cast<const G*>(layer.target) + image * layer.target_image;
  T* grad = static_cast<T*>(layer.grad) + image * layer.numel;
  if constexpr (sizeof(T) == 4)
    if (streamed && layer.linear && reinterpret_cast<uintptr_t>(grad + begin) % ND_VECTOR_BYTES == 0)
      return feature_stretch<T, G, true>(feature + begin, target + begin, grad + begin, end - begin, A(factor));
  if (layer.linear) return feature_stretch(feature + begin, target + begin, grad + begin, end - begin, A(factor));
  double total = 0;
  T features[kFeatureBlock];
  G targets[kFeatureBlock];
  for (int64_t at = begin; at < end; at += kFeatureBlock) {
    const int64_t n = smaller(end - at, kFeatureBlock);
    gather(feature, layer.feature_map, at, n, features);
    gather(target, layer.target_map, at, n, targets);
    total += feature_stretch(features, targets, grad + at, n, A(factor));
  }
  return total;
}

struct FeatureJob {
  const FeatureLoss* a;
  double* partial;                // (batch, chunks)
  int64_t first[kMaxLayers + 1];  // first chunk of each layer
  bool streamed;
};

ND_HD double layer_weight(const FeatureLoss& a, int64_t image, int layer) {
  const int64_t at = image * a.weights_image + layer;
  return a.feature_type == Type::f64 ? static_cast<const double*>(a.weights)[at]
                                     : double(static_cast<const float*>(a.weights)[at]);
}

template <class T, class G> void feature_body(int64_t begin, int64_t end, void* context) {
  const FeatureJob& job = *static_cast<const FeatureJob*>(context);
  const int64_t chunks = job.first[job.a->n_layers];
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit % job.a->batch, chunk = unit / job.a->batch;  // a target serves all images while cached
    int l = 0;
    while (chunk >= job.first[l + 1]) ++l;
    const Layer& layer = job.a->layer[l];
    const int64_t from = (chunk - job.first[l]) * kFeatureChunk;
    const double factor = feature_factor(layer_weight(*job.a, image, l), layer.numel, job.a->grad_scale);
    job.partial[image * chunks + chunk] =
        feature_chunk<T, G>(layer, image, from, smaller(from + kFeatureChunk, layer.numel), factor, job.streamed);
  }
  if (job.streamed) end_streams();
}

inline Body feature_body_for(Type feature, Type target) {
  if (feature == Type::f64) return feature_body<double, double>;
  if (feature == Type::f32) return feature_body<float, float>;
  if (feature == Type::f16) return target == Type::f32 ? feature_body<half_t, float> : feature_body<half_t, half_t>;
  return target == Type::f32 ? feature_body<bfloat_t, float> : feature_body<bfloat_t, bfloat_t>;
}

inline double image_loss(const FeatureJob& job, int64_t image) {
  const double* partial = job.partial + image * job.first[job.a->n_layers];
  double loss = 0;
  for (int l = 0; l < job.a->n_layers; ++l) {
    double total = 0;
    for (int64_t c = job.first[l]; c < job.first[l + 1]; ++c) total += partial[c];
    loss += layer_weight(*job.a, image, l) * total / double(job.a->layer[l].numel);
  }
  return loss;
}

inline void feature_loss_grad(const FeatureLoss& a, Parallel parallel) {
  FeatureJob job{&a, nullptr, {0}, false};
  int64_t elements = 0;
  for (int l = 0; l < a.n_layers; ++l) {
    job.first[l + 1] = job.first[l] + (a.layer[l].numel + kFeatureChunk - 1) / kFeatureChunk;
    elements += a.layer[l].numel * a.batch;
  }
  job.streamed = a.feature_type == Type::f32 && elements * 4 >= kStreamBytes;
  const int64_t units = a.batch * job.first[a.n_layers];
  Scratch<double> partial(units);
  job.partial = partial.data;
  parallel(units, 4, feature_body_for(a.feature_type, a.target_type), &job);
  for (int64_t image = 0; image < a.batch; ++image) {
    if (a.feature_type == Type::f64)
      static_cast<double*>(a.loss)[image] = image_loss(job, image);
    else
      static_cast<float*>(a.loss)[image] = float(image_loss(job, image));
  }
}

}  // namespace ND_ISA
}  // namespace nd
