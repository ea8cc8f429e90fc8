// GroupNorm with SiLU on channels-last data: gradient with respect to the input.
#pragma once

#include "group_norm_forward.h"

namespace nd {
namespace ND_ISA {

// dL/du of one vector
template <bool kSilu, class V> ND_HD V upstream(const Loaded<V>& channel, V x, V grad) {
  if constexpr (kSilu)
    return grad * silu_slope(channel.enters_silu(x));
  else
    return grad;
}

// Sums of du w and of du w (x - mean) of every group, from the sums over pixels of du and of du (x - mean).
template <class A> ND_HD void group_sums(const GroupNorm& a, const A* level, const A* tilt, double* out) {
  const int64_t width = a.channels / a.groups;
  for (int64_t g = 0; g < a.groups; ++g) {
    const A* weight = static_cast<const A*>(a.weight);
    out[2 * g] = group_total<A>(g, width, [&](int64_t c) ND_LAMBDA { return double(weight[c]) * double(level[c]); });
    out[2 * g + 1] = group_total<A>(g, width, [&](int64_t c) ND_LAMBDA { return double(weight[c]) * double(tilt[c]); });
  }
}

// Leaves du in `out` for the second pass: a store and a load cost less than the exponential once more.
template <class T, bool kSilu> void sums_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const auto& job = *static_cast<const NormJob<T>*>(context);
  const GroupNorm& a = *job.a;
  Scratch<A> scratch(2 * a.channels);
  A *level = scratch.data, *tilt = level + a.channels;
  for (int64_t unit = begin; unit < end; ++unit) {
    const Stretch s = stretch(a, unit);
    const Channels<A> of(a, job.channel, s.image);
    memset(level, 0, size_t(2 * a.channels) * sizeof(A));
    const int64_t first = s.image * a.pixels * a.channels;
    over_pixels(s.begin, s.end, [&](int64_t p, auto pixels) ND_LAMBDA {
      const T* x = static_cast<const T*>(a.x) + first + p * a.channels;
      const T* grad = static_cast<const T*>(a.grad) + first + p * a.channels;
      T* out = static_cast<T*>(a.out) + first + p * a.channels;
      over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
        const Loaded<typename Simd<A>::V> channel(of, c, lanes);
        auto sum = load_lanes(level + c, lanes), moment = load_lanes(tilt + c, lanes);
        for (int j = 0; j < pixels.count; ++j) {
          const auto value = load_lanes(x + j * a.channels + c, lanes);
          const auto du = upstream<kSilu>(channel, value, load_lanes(grad + j * a.channels + c, lanes));
          if constexpr (kSilu) store_lanes(out + j * a.channels + c, du, lanes);
          sum += du;
          moment += du * (value - channel.mean);
        }
        store_lanes(level + c, sum, lanes);
        store_lanes(tilt + c, moment, lanes);
      });
    });
    group_sums(a, level, tilt, partial(a, s));
  }
}

template <class T> void prepare_channels(const NormJob<T>& job) {
  using A = typename Accumulator<T>::type;
  const GroupNorm& a = *job.a;
  for (int64_t i = 0; i < a.batch * a.channels; ++i) {
    const int64_t image = i / a.channels, c = i % a.channels, g = image * a.groups + c / (a.channels / a.groups);
    set_channel(a, job.channel + image * kRows * a.channels, c, static_cast<const A*>(a.mean)[g],
                static_cast<const A*>(a.rstd)[g]);
  }
}

template <class T> void finish_sums(const NormJob<T>& job) {
  using A = typename Accumulator<T>::type;
  const GroupNorm& a = *job.a;
  const int64_t width = a.channels / a.groups, chunks = group_norm_chunks(a);
  for (int64_t i = 0; i < a.batch * a.groups; ++i) {
    const int64_t image = i / a.groups, g = i % a.groups;
    double level = 0, tilt = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const double* p = a.workspace + ((image * chunks + chunk) * a.groups + g) * 2;
      level += p[0];
      tilt += p[1];
    }
    const double rstd = double(static_cast<const A*>(a.rstd)[i]), n = double(width * a.pixels);
    A* rows = job.channel + image * kRows * a.channels;
    for (int64_t c = g * width; c < (g + 1) * width; ++c) {
      rows[kLevel * a.channels + c] = A(rstd * level / n);
      rows[kTilt * a.channels + c] = A(rstd * rstd * rstd * tilt / n);
    }
  }
}

template <class T, bool kSilu> void grad_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const auto& job = *static_cast<const NormJob<T>*>(context);
  const GroupNorm& a = *job.a;
  for (int64_t unit = begin; unit < end; ++unit) {
    const Stretch s = stretch(a, unit);
    const Channels<A> of(a, job.channel, s.image);
    const int64_t first = s.image * a.pixels * a.channels;
    over_pixels(s.begin, s.end, [&](int64_t p, auto pixels) ND_LAMBDA {
      const T* x = static_cast<const T*>(a.x) + first + p * a.channels;
      T* out = static_cast<T*>(a.out) + first + p * a.channels;
      const T* upstream = kSilu ? out : static_cast<const T*>(a.grad) + first + p * a.channels;
      over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
        const Loaded<typename Simd<A>::V> channel(of, c, lanes);
        const auto level = load_lanes(of.level + c, lanes), tilt = load_lanes(of.tilt + c, lanes);
        for (int j = 0; j < pixels.count; ++j) {
          const auto value = load_lanes(x + j * a.channels + c, lanes);
          const auto du = load_lanes(upstream + j * a.channels + c, lanes);
          const auto dx = norm_gradient(value, du, channel.mean, channel.gain, level, tilt);
          store_lanes(out + j * a.channels + c, dx, lanes);
        }
      });
    });
  }
}

}  // namespace ND_ISA
}  // namespace nd
