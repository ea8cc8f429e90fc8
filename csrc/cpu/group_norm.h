// GroupNorm with SiLU on channels-last data.  Each chunk of pixels fits the first-level cache; its statistics are
// merged with those of the other chunks in a fixed order.
#pragma once

namespace nd {
namespace ND_ISA {

template <class T> struct NormJob {
  using A = typename Accumulator<T>::type;
  const GroupNorm* a;
  A* channel;  // (batch, kRows, channels): what each channel of each image needs in the second pass
};

// rows of NormJob::channel
enum { kMean, kGain, kBias, kLevel, kTilt, kRows };

// All lanes, or the channels that are left at the end.
struct Whole {};
struct Part { int64_t n; };
template <class T> ND_HD auto load_lanes(const T* p, Whole) { return load(p); }
template <class T> ND_HD auto load_lanes(const T* p, Part part) { return load_part(p, part.n); }
template <class T, class V> ND_HD void store_lanes(T* p, V v, Whole) { store(p, v); }
template <class T, class V> ND_HD void store_lanes(T* p, V v, Part part) { store_part(p, v, part.n); }

// pass(p, Pixels<2>) for pairs of pixels, then pass(p, Pixels<1>) for an odd last one: two chains of dependent steps
// fill the pipeline better than one, and share the loads of the channels' numbers.
template <int kCount> struct Pixels { static constexpr int count = kCount; };
template <class F> ND_HD void over_pixels(int64_t begin, int64_t end, F pass) {
  int64_t p = begin;
  for (; p + 2 <= end; p += 2) pass(p, Pixels<2>{});
  if (p < end) pass(p, Pixels<1>{});
}

// f(c, lanes) for every vector of channels.
template <class A, class F> ND_HD void over_channels(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + Simd<A>::kLanes <= channels; c += Simd<A>::kLanes) f(c, Whole{});
  if (c < channels) f(c, Part{channels - c});
}

// Which pixels a unit of work covers.
struct Stretch { int64_t image, chunk, begin, end; };
ND_HD Stretch stretch(const GroupNorm& a, int64_t unit) {
  const int64_t chunks = group_norm_chunks(a), chunk = unit % chunks, begin = chunk * group_norm_rows(a);
  return {unit / chunks, chunk, begin, smaller(begin + group_norm_rows(a), a.pixels)};
}
ND_HD double* partial(const GroupNorm& a, const Stretch& s) {
  return a.workspace + (s.image * group_norm_chunks(a) + s.chunk) * a.groups * 2;
}

// ---- forward -------------------------------------------------------------------------------------------------

// sums[c] = sum over the pixels of f(x, c), four pixels at a time
template <class T, class F>
ND_HD void channel_sums(const GroupNorm& a, const Stretch& s, typename Accumulator<T>::type* sums, F f) {
  using A = typename Accumulator<T>::type;
  const T* x = static_cast<const T*>(a.x) + s.image * a.pixels * a.channels;
  memset(sums, 0, size_t(a.channels) * sizeof(A));
  int64_t p = s.begin;
  for (; p + 4 <= s.end; p += 4) {
    const T *x0 = x + p * a.channels, *x1 = x0 + a.channels, *x2 = x1 + a.channels, *x3 = x2 + a.channels;
    over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
      const auto pair = f(load_lanes(x0 + c, lanes), c, lanes) + f(load_lanes(x1 + c, lanes), c, lanes);
      const auto other = f(load_lanes(x2 + c, lanes), c, lanes) + f(load_lanes(x3 + c, lanes), c, lanes);
      store_lanes(sums + c, load_lanes(sums + c, lanes) + (pair + other), lanes);
    });
  }
  for (; p < s.end; ++p)
    over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
      const auto value = f(load_lanes(x + p * a.channels + c, lanes), c, lanes);
      store_lanes(sums + c, load_lanes(sums + c, lanes) + value, lanes);
    });
}

// Mean and squared deviations of every group within one chunk: two passes, the second in the cache.
template <class T> void moments_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const GroupNorm& a = *static_cast<const NormJob<T>*>(context)->a;
  const int64_t width = a.channels / a.groups;
  Scratch<A> sums(a.channels), means(a.channels);
  for (int64_t unit = begin; unit < end; ++unit) {
    const Stretch s = stretch(a, unit);
    double* out = partial(a, s);
    channel_sums<T>(a, s, sums.data, [](auto x, int64_t, auto) ND_LAMBDA { return x; });
    for (int64_t g = 0; g < a.groups; ++g) {
      double total = 0;
      for (int64_t c = g * width; c < (g + 1) * width; ++c) total += double(sums.data[c]);
      const A mean = A(total / double(width * (s.end - s.begin)));
      for (int64_t c = g * width; c < (g + 1) * width; ++c) means.data[c] = mean;
    }
    channel_sums<T>(a, s, sums.data, [&](auto x, int64_t c, auto lanes) ND_LAMBDA {
      const auto d = x - load_lanes(means.data + c, lanes);
      return d * d;
    });
    for (int64_t g = 0; g < a.groups; ++g) {
      out[2 * g] = double(means.data[g * width]);
      out[2 * g + 1] = 0;
      for (int64_t c = g * width; c < (g + 1) * width; ++c) out[2 * g + 1] += double(sums.data[c]);
    }
  }
}

ND_HD Moments group_moments(const GroupNorm& a, int64_t image, int64_t group) {
  Moments all{0, 0, 0};
  for (int64_t unit = image * group_norm_chunks(a); unit < (image + 1) * group_norm_chunks(a); ++unit) {
    const Stretch s = stretch(a, unit);
    const double* p = partial(a, s) + 2 * group;
    all = merge(all, {double((s.end - s.begin) * (a.channels / a.groups)), p[0], p[1]});
  }
  return all;
}

template <class A> ND_HD void set_channel(const GroupNorm& a, A* rows, int64_t c, A mean, A rstd) {
  rows[kMean * a.channels + c] = mean;
  rows[kGain * a.channels + c] = rstd * static_cast<const A*>(a.weight)[c];
  rows[kBias * a.channels + c] = static_cast<const A*>(a.bias)[c];
}

template <class T> void finish_moments(const NormJob<T>& job) {
  using A = typename Accumulator<T>::type;
  const GroupNorm& a = *job.a;
  const int64_t width = a.channels / a.groups;
  for (int64_t i = 0; i < a.batch * a.groups; ++i) {
    const Moments m = group_moments(a, i / a.groups, i % a.groups);
    const A mean = A(m.mean), rstd = A(1 / sqrt(m.m2 / m.count + a.eps));
    static_cast<A*>(a.mean)[i] = mean;
    static_cast<A*>(a.rstd)[i] = rstd;
    A* rows = job.channel + i / a.groups * kRows * a.channels;
    for (int64_t c = i % a.groups * width; c < (i % a.groups + 1) * width; ++c) set_channel(a, rows, c, mean, rstd);
  }
}

// What a pass over pixels needs of one image, one number per channel each.
template <class A> struct Channels {
  const A *mean, *gain, *bias, *level, *tilt;
  Channels(const GroupNorm& a, const A* all, int64_t image) {
    const A* rows = all + image * kRows * a.channels;
    mean = rows + kMean * a.channels;
    gain = rows + kGain * a.channels;
    bias = rows + kBias * a.channels;
    level = rows + kLevel * a.channels;
    tilt = rows + kTilt * a.channels;
  }
};

// A channel vector's numbers, loaded once for all pixels of a pass.
template <class V> struct Loaded {
  V mean, gain, bias;
  template <class A, class L>
  ND_HD Loaded(const Channels<A>& of, int64_t c, L lanes)
      : mean(load_lanes(of.mean + c, lanes)), gain(load_lanes(of.gain + c, lanes)), bias(load_lanes(of.bias + c, lanes)) {}
  ND_HD V enters_silu(V x) const { return normalised(x, mean, gain, bias); }
};

template <class T, bool kSilu> void norm_body(int64_t begin, int64_t end, void* context) {
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
      over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
        const Loaded<typename Simd<A>::V> channel(of, c, lanes);
        for (int j = 0; j < pixels.count; ++j) {
          const auto u = channel.enters_silu(load_lanes(x + j * a.channels + c, lanes));
          if constexpr (kSilu) store_lanes(out + j * a.channels + c, silu(u), lanes);
          else store_lanes(out + j * a.channels + c, u, lanes);
        }
      });
    });
  }
}

// ---- backward ------------------------------------------------------------------------------------------------

// dL/du of one vector
template <bool kSilu, class V> ND_HD V upstream(const Loaded<V>& channel, V x, V grad) {
  if constexpr (kSilu) return grad * silu_slope(channel.enters_silu(x));
  else return grad;
}

// Sums of du w and of du w (x - mean) of every group, from the sums over pixels of du and of du (x - mean).
template <class A> ND_HD void group_sums(const GroupNorm& a, const A* level, const A* tilt, double* out) {
  const int64_t width = a.channels / a.groups;
  for (int64_t g = 0; g < a.groups; ++g) {
    out[2 * g] = out[2 * g + 1] = 0;
    for (int64_t c = g * width; c < (g + 1) * width; ++c) {
      const double weight = double(static_cast<const A*>(a.weight)[c]);
      out[2 * g] += weight * double(level[c]);
      out[2 * g + 1] += weight * double(tilt[c]);
    }
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
    set_channel(a, job.channel + image * kRows * a.channels, c, static_cast<const A*>(a.mean)[g], static_cast<const A*>(a.rstd)[g]);
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

// ---- entry ---------------------------------------------------------------------------------------------------

template <class T> void norm_forward(const GroupNorm& a, Parallel parallel) {
  Scratch<typename Accumulator<T>::type> channel(a.batch * kRows * a.channels);
  NormJob<T> job{&a, channel.data};
  const int64_t units = a.batch * group_norm_chunks(a);
  parallel(units, 4, moments_body<T>, &job);
  finish_moments(job);
  parallel(units, 4, a.silu ? norm_body<T, true> : norm_body<T, false>, &job);
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
