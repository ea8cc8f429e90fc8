// The guided step: up to six tensors of mixed type in one linear combination, one launch.
#pragma once

#include "launch.cuh"

namespace nd {

// ---- kernel --------------------------------------------------------------------------------------------------

constexpr int kStepThreads = 256;

template <class Out> ND_HD constexpr int step_pack_size() { return 16 / int(sizeof(Out)); }

ND_HD int type_size(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }

// The bits of V neighbours of a term; types of two bytes fill the lower half.
template <int V>
__device__ __forceinline__ Words<V> step_load(const void* __restrict__ term, Type type, int64_t at) {
  Words<V> raw = {};
  if (type == Type::f32) return *reinterpret_cast<const Words<V>*>(static_cast<const float*>(term) + at);
  const uint16_t* from = static_cast<const uint16_t*>(term) + at;
  if constexpr (V == 1) {
    raw.at[0] = *from;
  } else {
    const auto half = *reinterpret_cast<const Words<V / 2>*>(from);
#pragma unroll
    for (int j = 0; j < V / 2; ++j) raw.at[j] = half.at[j];
  }
  return raw;
}

template <class T, int V> __device__ __forceinline__ void step_add(const Words<V>& raw, float c, float (&sum)[V]) {
#pragma unroll
  for (int j = 0; j < V; ++j) sum[j] = add_term(sum[j], widen(word_element<T>(raw, j)), c);
}

// All terms are loaded before the first is used, so that their latencies overlap.
template <int V, class Out>
__device__ __forceinline__ void step_pack(const GuidedStep& a, const float (&c)[kMaxTerms], int64_t at) {
  Words<V> raw[kMaxTerms];
  float sum[V] = {};
#pragma unroll
  for (int t = 0; t < kMaxTerms; ++t) {
    if (t < a.n_terms) raw[t] = step_load<V>(a.term[t], a.term_type[t], at);
  }
#pragma unroll
  for (int t = 0; t < kMaxTerms; ++t) {
    if (t >= a.n_terms) continue;
    if (a.term_type[t] == Type::f32) {
      step_add<float>(raw[t], c[t], sum);
    } else if (a.term_type[t] == Type::f16) {
      step_add<half_t>(raw[t], c[t], sum);
    } else {
      step_add<bfloat_t>(raw[t], c[t], sum);
    }
  }
  store<V>(static_cast<Out*>(a.out) + at, sum);
}

template <int V, class Out>
__device__ __forceinline__ void step_pack(const GuidedStep& a, const double (&c)[kMaxTerms], int64_t at) {
  double sum[V] = {}, term[V];
#pragma unroll
  for (int t = 0; t < kMaxTerms; ++t) {
    if (t >= a.n_terms) continue;
    load<V>(static_cast<const double*>(a.term[t]) + at, term);
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] = add_term(sum[j], term[j], c[t]);
  }
  store<V>(static_cast<Out*>(a.out) + at, sum);
}

// Coefficients of one image.
template <class A>
__device__ __forceinline__ void step_coefficients_of(const GuidedStep& a, int64_t image, A (&c)[kMaxTerms]) {
  const double* from = a.table ? a.table + (a.table_images > 1 ? image : 0) * a.n_terms : a.coefficient;
#pragma unroll
  for (int t = 0; t < kMaxTerms; ++t) {
    if (t < a.n_terms) c[t] = A(from[t]);
  }
}

template <class Out> __device__ __forceinline__ bool step_aligned(const GuidedStep& a, int64_t at) {
  constexpr int V = step_pack_size<Out>();
  bool all = aligned(static_cast<const Out*>(a.out) + at, 16);
#pragma unroll
  for (int t = 0; t < kMaxTerms; ++t) {
    if (t >= a.n_terms) continue;
    const int size = type_size(a.term_type[t]);
    all = all && aligned(static_cast<const char*>(a.term[t]) + at * size, size * V < 16 ? size * V : 16);
  }
  return all;
}

template <class Out>
__global__ void __launch_bounds__(kStepThreads, 2) guided_step_kernel(const __grid_constant__ GuidedStep a) {
  constexpr int V = step_pack_size<Out>();
  const int64_t lane = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, lanes = int64_t(gridDim.x) * blockDim.x;
  for (int64_t image = blockIdx.y; image < a.batch; image += gridDim.y) {
    const int64_t base = image * a.per_image;
    Acc<Out> c[kMaxTerms];
    step_coefficients_of(a, image, c);
    const int64_t packs = step_aligned<Out>(a, base) ? a.per_image / V : 0;
    for (int64_t i = lane; i < packs; i += lanes) step_pack<V, Out>(a, c, base + i * V);
    for (int64_t i = packs * V + lane; i < a.per_image; i += lanes) step_pack<1, Out>(a, c, base + i);
  }
}

// ---- launcher ------------------------------------------------------------------------------------------------

const char* guided_step_cuda(const GuidedStep& given, void* stream) {
  GuidedStep a = given;
  if (a.batch == 0 || a.per_image == 0) return nullptr;
  if (!a.table || a.table_images == 1) {  // every image has the same coefficients: one long image
    a.per_image *= a.batch;
    a.batch = 1;
  }
  return for_type(a.out_type, [&](auto tag) {
    using Out = decltype(tag);
    const int64_t blocks = ceil_div(ceil_div(a.per_image, step_pack_size<Out>()), kStepThreads);
    const Grid grid = {smaller(blocks, kMaxGridX), smaller(a.batch, kMaxGridY), kStepThreads, 0, 1};
    return launch(guided_step_kernel<Out>, grid, stream, a);
  });
}

}  // namespace nd
