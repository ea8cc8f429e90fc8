// GroupNorm with SiLU: the two entries.
#pragma once

#include "group_norm_backward.h"

namespace nd {
namespace ND_ISA {

constexpr int64_t kNormStreamBytes = 16 << 20;  // of output: less is still in the cache when the convolution reads it

// The whole output in vectors, each at a multiple of its size.
template <class T> bool norm_streams(const GroupNorm& a) {
  const bool whole = a.channels % Simd<float>::kLanes == 0 && reinterpret_cast<uintptr_t>(a.out) % ND_VECTOR_BYTES == 0;
  return std::is_same_v<T, float> && whole && a.batch * a.pixels * a.channels * 4 >= kNormStreamBytes;
}

template <class T> Body norm_body_for(const GroupNorm& a) {
  if (norm_streams<T>(a)) return a.silu ? norm_body<T, true, true> : norm_body<T, false, true>;
  return a.silu ? norm_body<T, true, false> : norm_body<T, false, false>;
}

template <class T> void norm_forward(const GroupNorm& a, Parallel parallel) {
  Scratch<typename Accumulator<T>::type> channel(a.batch * kRows * a.channels);
  NormJob<T> job{&a, channel.data};
  const int64_t units = a.batch * group_norm_chunks(a);
  parallel(units, 4, moments_body<T>, &job);
  finish_moments(job);
  parallel(units, 4, norm_body_for<T>(a), &job);
}

template <class T> void norm_backward(const GroupNorm& a, Parallel parallel) {
  Scratch<typename Accumulator<T>::type> channel(a.batch * kRows * a.channels);
  NormJob<T> job{&a, channel.data};
  const int64_t units = a.batch * group_norm_chunks(a);
  prepare_channels(job);
  parallel(units, 4, a.silu ? sums_body<T, true> : sums_body<T, false>, &job);
  finish_sums(job);
  parallel(units, 4, a.silu ? grad_body<T, true> : grad_body<T, false>, &job);
}

inline void group_norm(const GroupNorm& a, Parallel parallel) {
  if (a.type == Type::f64) return norm_forward<double>(a, parallel);
  if (a.type == Type::f32) return norm_forward<float>(a, parallel);
  if (a.type == Type::f16) return norm_forward<half_t>(a, parallel);
  norm_forward<bfloat_t>(a, parallel);
}

inline void group_norm_backward(const GroupNorm& a, Parallel parallel) {
  if (a.type == Type::f64) return norm_backward<double>(a, parallel);
  if (a.type == Type::f32) return norm_backward<float>(a, parallel);
  if (a.type == Type::f16) return norm_backward<half_t>(a, parallel);
  norm_backward<bfloat_t>(a, parallel);
}

}  // namespace ND_ISA
}  // namespace nd
