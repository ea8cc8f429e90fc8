// GroupNorm with SiLU on channels-last data: what both directions use, and forward.  Each chunk of pixels fits the
// first-level cache; its statistics are merged with those of the other chunks in a fixed order.
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
struct Part {
  int64_t n;
};
template <class T> ND_HD auto load_lanes(const T* p, Whole) { return load(p); }
template <class T> ND_HD auto load_lanes(const T* p, Part part) { return load_part(p, part.n); }
template <class T, class V> ND_HD void store_lanes(T* p, V v, Whole) { store(p, v); }
template <class T, class V> ND_HD void store_lanes(T* p, V v, Part part) { store_part(p, v, part.n); }

// pass(p, Pixels<2>) for pairs of pixels, then pass(p, Pixels<1>) for an odd last one: two chains of dependent steps
// fill the pipeline better than one, and share the loads of the channels' numbers.
template <int kCount> struct Pixels {
  static constexpr int count = kCount;
};
template <class F> ND_HD void over_pixels(int64_t begin, int64_t end, F pass) {
  int64_t p = begin;
  for (; p + 2 <= end; p += 2) pass(p, Pixels<2>{});
  if (p < end) pass(p, Pixels<1>{});
}

// A result past the caches, where that was asked for and a whole vector is written.
template <bool kStream, class T, class V, class L> ND_HD void store_result(T* p, V v, L lanes) {
  if constexpr (kStream && std::is_same_v<L, Whole> && std::is_same_v<T, float>)
    stream(p, v);
  else
    store_lanes(p, v, lanes);
}

// f(c, lanes) for every vector of channels.
template <class A, class F> ND_HD void over_channels(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + Simd<A>::kLanes <= channels; c += Simd<A>::kLanes) f(c, Whole{});
  if (c < channels) f(c, Part{channels - c});
}

// Which pixels a unit of work covers.
struct Stretch {
  int64_t image, chunk, begin, end;
};
ND_HD Stretch stretch(const GroupNorm& a, int64_t unit) {
  const int64_t chunks = group_norm_chunks(a), chunk = unit % chunks, begin = chunk * group_norm_rows(a);
  return {unit / chunks, chunk, begin, smaller(begin + group_norm_rows(a), a.pixels)};
}
ND_HD double* partial(const GroupNorm& a, const Stretch& s) {
  return a.workspace + (s.image * group_norm_chunks(a) + s.chunk) * a.groups * 2;
}

// ---- forward -------------------------------------------------------------------------------------------------

// sums[c] = sum over the pixels of x - shift[c] and, if asked for, squares[c] of its square; four pixels at a time
template <bool kSquares, class T, class A>
ND_HD void channel_sums(const GroupNorm& a, const Stretch& s, const A* shift, A* sums, A* squares) {
  const T* x = static_cast<const T*>(a.x) + s.image * a.pixels * a.channels;
  memset(sums, 0, size_t(a.channels) * sizeof(A));
  if (kSquares) memset(squares, 0, size_t(a.channels) * sizeof(A));
  const auto add = [&](const T* pixel, int64_t count) ND_LAMBDA {
    over_channels<A>(a.channels, [&](int64_t c, auto lanes) ND_LAMBDA {
      const auto center = load_lanes(shift + c, lanes);
      typename Simd<A>::V sum = {}, square = {};
      for (int64_t j = 0; j < count; ++j) {
        const auto d = load_lanes(pixel + j * a.channels + c, lanes) - center;
        sum += d;
        if (kSquares) square += d * d;
      }
      store_lanes(sums + c, load_lanes(sums + c, lanes) + sum, lanes);
      if (kSquares) store_lanes(squares + c, load_lanes(squares + c, lanes) + square, lanes);
    });
  };
  int64_t p = s.begin;
  for (; p + 4 <= s.end; p += 4) add(x + p * a.channels, 4);
  if (p < s.end) add(x + p * a.channels, s.end - p);
}

// Four sums side by side: one alone would wait for every addition.
template <class A, class F> ND_HD double group_total(int64_t group, int64_t width, F of_channel) {
  double total[4] = {0, 0, 0, 0};
  int64_t c = group * width;
  const int64_t end = c + width;
  for (; c + 4 <= end; c += 4)
    for (int j = 0; j < 4; ++j) total[j] += of_channel(c + j);
  for (; c < end; ++c) total[0] += of_channel(c);
  return (total[0] + total[1]) + (total[2] + total[3]);
}

template <class A> ND_HD double group_total(const A* of_channel, int64_t group, int64_t width) {
  return group_total<A>(group, width, [&](int64_t c) ND_LAMBDA { return double(of_channel[c]); });
}

// Mean and squared deviations of every group within one chunk: two passes, the second in the cache.  The second also
// sums the deviations, which puts right what rounding left in the mean.
template <class T> void moments_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const GroupNorm& a = *static_cast<const NormJob<T>*>(context)->a;
  const int64_t width = a.channels / a.groups;
  Scratch<A> scratch(3 * a.channels);
  A *means = scratch.data, *sums = means + a.channels, *squares = sums + a.channels;
  for (int64_t unit = begin; unit < end; ++unit) {
    const Stretch s = stretch(a, unit);
    const double count = double(width * (s.end - s.begin));
    double* out = partial(a, s);
    memset(means, 0, size_t(a.channels) * sizeof(A));
    channel_sums<false, T>(a, s, means, sums, squares);
    for (int64_t g = 0; g < a.groups; ++g) {
      const A mean = A(group_total(sums, g, width) / count);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) means[c] = mean;
    }
    channel_sums<true, T>(a, s, means, sums, squares);
    for (int64_t g = 0; g < a.groups; ++g) {
      const double rest = group_total(sums, g, width) / count;
      out[2 * g] = double(means[g * width]) + rest;
      out[2 * g + 1] = group_total(squares, g, width) - rest * rest * count;
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
  template <class A, class L> ND_HD Loaded(const Channels<A>& of, int64_t c, L lanes)
      : mean(load_lanes(of.mean + c, lanes)),
        gain(load_lanes(of.gain + c, lanes)),
        bias(load_lanes(of.bias + c, lanes)) {}
  ND_HD V enters_silu(V x) const { return normalised(x, mean, gain, bias); }
};

template <class T, bool kSilu, bool kStream> void norm_body(int64_t begin, int64_t end, void* context) {
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
          if constexpr (kSilu)
            store_result<kStream>(out + j * a.channels + c, silu(u), lanes);
          else
            store_result<kStream>(out + j * a.channels + c, u, lanes);
        }
      });
    });
  }
  if (kStream) end_streams();
}

}  // namespace ND_ISA
}  // namespace nd
