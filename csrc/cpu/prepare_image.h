// prepare_image: separable resize of as many rows at a time as a vector has lanes.  The vertical filter runs along
// the rows; the rows are then transposed, so that the horizontal filter works on whole vectors too.
#pragma once

namespace nd {
namespace ND_ISA {

// For every position of an axis the first position on the other side, how many, and their normalised weights.
template <class A> struct Taps {
  int64_t n, width;  // positions, largest count
  Scratch<int64_t> begin, count;
  Scratch<A> weight;  // (n, width)

  Taps(int64_t positions, int64_t widest)
      : n(positions), width(widest), begin(positions), count(positions), weight(positions * widest) {}
  ND_HD const A* row(int64_t i) const { return weight.data + i * width; }
};

// Largest count over n positions, at least 1.
template <class F> int64_t widest(int64_t n, F count) {
  int64_t most = 1;
  for (int64_t i = 0; i < n; ++i) most = count(i) > most ? count(i) : most;
  return most;
}

inline int64_t widest_taps(const Axis& axis) {
  return widest(axis.out, [&](int64_t i) { return tap_end(axis, i) - tap_begin(axis, i); });
}

inline int64_t widest_cover(const Axis& axis) {
  return widest(axis.in, [&](int64_t i) { return cover_end(axis, i) - cover_begin(axis, i); });
}

// Output position -> input positions.
template <class A> void fill_taps(const Axis& axis, Taps<A>& taps) {
  for (int64_t i = 0; i < axis.out; ++i) {
    const int64_t begin = tap_begin(axis, i), n = tap_end(axis, i) - begin;
    const double total = tap_total(axis, i);
    taps.begin.data[i] = begin;
    taps.count.data[i] = n;
    for (int64_t t = 0; t < n; ++t) taps.weight.data[i * taps.width + t] = A(tap_weight(axis, i, begin + t) / total);
  }
}

// Input position -> output positions, of the transposed filter.
template <class A> void fill_cover(const Axis& axis, Taps<A>& taps) {
  Scratch<double> total(axis.out);
  for (int64_t i = 0; i < axis.out; ++i) total.data[i] = tap_total(axis, i);
  for (int64_t x = 0; x < axis.in; ++x) {
    int64_t begin = cover_begin(axis, x), end = cover_end(axis, x);
    while (begin < end && !covers(axis, begin, x)) ++begin;
    while (end > begin && !covers(axis, end - 1, x)) --end;
    taps.begin.data[x] = begin;
    taps.count.data[x] = end - begin;
    for (int64_t i = begin; i < end; ++i)
      taps.weight.data[x * taps.width + i - begin] = A(tap_weight(axis, i, x) / total.data[i]);
  }
}

template <class A> struct Resize {
  const PrepareImage* a;
  Taps<A>* rows;
  Taps<A>* columns;
  int interleaved;  // channels that lie next to each other in one row of the image: 3 if channels-last, or 1
};

ND_HD int64_t padded(int64_t n, int64_t lanes) { return (n + lanes - 1) / lanes * lanes; }

// kLanes rows of `length` (padded) to columns: to[x] holds element x of every row.  And back.
template <class A> ND_HD void rows_to_columns(const A* rows, int64_t length, A* columns) {
  constexpr int n = Simd<A>::kLanes;
  for (int64_t x = 0; x < length; x += n) {
    typename Simd<A>::V block[n];
    for (int r = 0; r < n; ++r) block[r] = load(rows + r * length + x);
    transpose<A>(block);
    for (int r = 0; r < n; ++r) store(columns + (x + r) * n, block[r]);
  }
}

// Adds weight * value(row) for a row of n elements with `stride` between them; f is applied to the values.
template <class A, class T, class F>
ND_HD void add_row(A* sum, const T* row, int64_t n, int64_t stride, A weight, F f) {
  constexpr int kLanes = Simd<A>::kLanes;
  int64_t i = 0;
  if (stride == 1)
    for (; i + kLanes <= n; i += kLanes) store(sum + i, load(sum + i) + f(load(row + i)) * weight);
  for (; i < n; ++i) sum[i] += f(A(widen(row[i * stride]))) * weight;
}

struct UnitRange {
  template <class V> ND_HD V operator()(V x) const { return unit_range(x); }
};
struct Unchanged {
  template <class V> ND_HD V operator()(V x) const { return x; }
};

// ---- forward -------------------------------------------------------------------------------------------------

template <class T, class A>
ND_HD void forward_band(const Resize<A>& job, int64_t image, int64_t channel, int64_t top, A* scratch) {
  constexpr int n = Simd<A>::kLanes;
  const PrepareImage& a = *job.a;
  const int64_t k = job.interleaved, length = padded(a.width * k, n), out_length = padded(a.size, n);
  A *rows = scratch, *columns = rows + length * n, *result = columns + length * n;
  const int64_t stride = k == 3 ? 1 : a.image_stride[3];
  for (int r = 0; r < n; ++r) {
    A* sum = rows + r * length;
    memset(sum, 0, size_t(length) * sizeof(A));
    if (top + r >= a.size) continue;
    for (int64_t t = 0; t < job.rows->count.data[top + r]; ++t) {
      const T* row = static_cast<const T*>(a.image) + image * a.image_stride[0] + channel * a.image_stride[1] +
                     (job.rows->begin.data[top + r] + t) * a.image_stride[2];
      add_row(sum, row, a.width * k, stride, job.rows->row(top + r)[t], UnitRange{});
    }
  }
  rows_to_columns(rows, length, columns);
  for (int64_t c = channel; c < channel + k; ++c) {
    const A mean = A(a.mean[c]), gain = A(1 / a.std[c]);
    for (int64_t i = 0; i < a.size; ++i) {
      const A *weight = job.columns->row(i), *from = columns + (job.columns->begin.data[i] * k + c - channel) * n;
      auto sum = load(from) * weight[0];
      for (int64_t t = 1; t < job.columns->count.data[i]; ++t) sum += load(from + t * k * n) * weight[t];
      store(result + i * n, (sum - mean) * gain);
    }
    for (int64_t i = 0; i < a.size; i += n) {
      typename Simd<A>::V block[n];
      for (int r = 0; r < n; ++r) block[r] = load(result + (i + r) * n);
      transpose<A>(block);
      for (int64_t r = 0; r < smaller(n, a.size - top); ++r)
        store_part(static_cast<T*>(a.out) + ((image * 3 + c) * a.size + top + r) * a.size + i, block[r],
                   smaller(n, a.size - i));
    }
  }
  (void)out_length;
}

template <class T> void forward_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const auto& job = *static_cast<const Resize<A>*>(context);
  constexpr int n = Simd<A>::kLanes;
  const PrepareImage& a = *job.a;
  const int64_t bands = (a.size + n - 1) / n, planes = 3 / job.interleaved;
  const int64_t length = padded(a.width * job.interleaved, n);
  Scratch<A> scratch(2 * length * n + padded(a.size, n) * n);
  memset(scratch.data + 2 * length * n, 0, size_t(padded(a.size, n) * n) * sizeof(A));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t band = unit % bands, plane = unit / bands;
    forward_band<T, A>(job, plane / planes, plane % planes, band * n, scratch.data);
  }
}

// ---- backward ------------------------------------------------------------------------------------------------

// One channel: rows of the gradient gathered to the band's image rows, then columns to the image's columns.
template <class T, class A>
ND_HD void gather_channel(const Resize<A>& job, int64_t image, int64_t c, int64_t top, A* scratch, A* result) {
  constexpr int n = Simd<A>::kLanes;
  const PrepareImage& a = *job.a;
  const int64_t length = padded(a.size, n), k = job.interleaved;
  A *rows = scratch, *columns = rows + length * n;
  const A gain = A(1 / a.std[c]);
  for (int r = 0; r < n; ++r) {
    A* sum = rows + r * length;
    memset(sum, 0, size_t(length) * sizeof(A));
    if (top + r >= a.height) continue;
    for (int64_t t = 0; t < job.rows->count.data[top + r]; ++t) {
      const T* row = static_cast<const T*>(a.grad) + image * a.grad_stride[0] + c * a.grad_stride[1] +
                     (job.rows->begin.data[top + r] + t) * a.grad_stride[2];
      add_row(sum, row, a.size, a.grad_stride[3], job.rows->row(top + r)[t] * gain, Unchanged{});
    }
  }
  rows_to_columns(rows, length, columns);
  for (int64_t x = 0; x < a.width; ++x) {
    const A *weight = job.columns->row(x), *from = columns + job.columns->begin.data[x] * n;
    typename Simd<A>::V sum = {};
    for (int64_t t = 0; t < job.columns->count.data[x]; ++t) sum += load(from + t * n) * weight[t];
    store(result + x * k * n, sum);
  }
}

template <class T, class A>
ND_HD void backward_band(const Resize<A>& job, int64_t image, int64_t channel, int64_t top, A* scratch) {
  constexpr int n = Simd<A>::kLanes;
  const PrepareImage& a = *job.a;
  const int64_t k = job.interleaved, row_length = a.width * k;
  A* result = scratch + 2 * padded(a.size, n) * n;
  for (int64_t c = channel; c < channel + k; ++c)
    gather_channel<T, A>(job, image, c, top, scratch, result + (c - channel) * n);
  const int64_t stride = k == 3 ? 1 : a.image_stride[3], out_stride = k == 3 ? 1 : a.out_stride[3];
  const T* from = static_cast<const T*>(a.image) + image * a.image_stride[0] + channel * a.image_stride[1];
  T* to = static_cast<T*>(a.out) + image * a.out_stride[0] + channel * a.out_stride[1];
  constexpr int64_t kTile = 8 * n;
  A tile[n * kTile];
  for (int64_t x = 0; x < row_length; x += kTile) {
    const int64_t width = smaller(kTile, row_length - x);
    for (int64_t i = 0; i < width; i += n) {
      typename Simd<A>::V block[n];
      for (int r = 0; r < n; ++r) block[r] = load(result + (x + i + r) * n);
      transpose<A>(block);
      for (int r = 0; r < n; ++r) store(tile + r * kTile + i, block[r]);
    }
    for (int64_t r = 0; r < smaller(n, a.height - top); ++r) {
      T* out = to + (top + r) * a.out_stride[2] + x * out_stride;
      const T* pixel = from + (top + r) * a.image_stride[2] + x * stride;
      int64_t i = 0;
      if (out_stride == 1 && stride == 1)
        for (; i + n <= width; i += n) store(out + i, load(tile + r * kTile + i) * unit_slope(load(pixel + i)));
      for (; i < width; ++i)
        out[i * out_stride] = narrow<T>(tile[r * kTile + i] * unit_slope(widen(pixel[i * stride])));
    }
  }
}

template <class T> void backward_body(int64_t begin, int64_t end, void* context) {
  using A = typename Accumulator<T>::type;
  const auto& job = *static_cast<const Resize<A>*>(context);
  constexpr int n = Simd<A>::kLanes;
  const PrepareImage& a = *job.a;
  const int64_t bands = (a.height + n - 1) / n, planes = 3 / job.interleaved;
  const int64_t result = padded(a.width * job.interleaved, n) * n, before = 2 * padded(a.size, n) * n;
  Scratch<A> scratch(before + result);
  memset(scratch.data + before, 0, size_t(result) * sizeof(A));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t band = unit % bands, plane = unit / bands;
    backward_band<T, A>(job, plane / planes, plane % planes, band * n, scratch.data);
  }
}

// ---- entry ---------------------------------------------------------------------------------------------------

ND_HD bool is_interleaved(const int64_t* stride) {
  return stride[1] == 1 && stride[3] == 3;
}

template <class T> void resize_forward(const PrepareImage& a, Parallel parallel) {
  using A = typename Accumulator<T>::type;
  const Axis vertical = make_axis(a.height, a.size), horizontal = make_axis(a.width, a.size);
  Taps<A> rows(a.size, widest_taps(vertical)), columns(a.size, widest_taps(horizontal));
  fill_taps(vertical, rows);
  fill_taps(horizontal, columns);
  Resize<A> job{&a, &rows, &columns, is_interleaved(a.image_stride) ? 3 : 1};
  const int64_t bands = (a.size + Simd<A>::kLanes - 1) / Simd<A>::kLanes;
  parallel(a.batch * (3 / job.interleaved) * bands, 1, forward_body<T>, &job);
}

template <class T> void resize_backward(const PrepareImage& a, Parallel parallel) {
  using A = typename Accumulator<T>::type;
  const Axis vertical = make_axis(a.height, a.size), horizontal = make_axis(a.width, a.size);
  Taps<A> rows(a.height, widest_cover(vertical)), columns(a.width, widest_cover(horizontal));
  fill_cover(vertical, rows);
  fill_cover(horizontal, columns);
  const bool interleaved = is_interleaved(a.image_stride) && is_interleaved(a.out_stride);
  Resize<A> job{&a, &rows, &columns, interleaved ? 3 : 1};
  const int64_t bands = (a.height + Simd<A>::kLanes - 1) / Simd<A>::kLanes;
  parallel(a.batch * (3 / job.interleaved) * bands, 1, backward_body<T>, &job);
}

inline void prepare_image(const PrepareImage& a, Parallel parallel) {
  if (a.type == Type::f64) return resize_forward<double>(a, parallel);
  if (a.type == Type::f32) return resize_forward<float>(a, parallel);
  if (a.type == Type::f16) return resize_forward<half_t>(a, parallel);
  resize_forward<bfloat_t>(a, parallel);
}

inline void prepare_image_backward(const PrepareImage& a, Parallel parallel) {
  if (a.type == Type::f64) return resize_backward<double>(a, parallel);
  if (a.type == Type::f32) return resize_backward<float>(a, parallel);
  if (a.type == Type::f16) return resize_backward<half_t>(a, parallel);
  resize_backward<bfloat_t>(a, parallel);
}

}  // namespace ND_ISA
}  // namespace nd
