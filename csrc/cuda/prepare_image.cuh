// The image for the guide network and its gradient: one gather for both directions, columns first, then rows.
#pragma once

#include "launch.cuh"

namespace nd {

// ---- kernels -------------------------------------------------------------------------------------------------

constexpr int kTileColumns = 32, kTileRows = 16, kTileLanes = 8;  // 32 x 8 threads, two pixels each
constexpr int kTileTaps = 16;    // weights kept per row and column; beyond that they are computed where used
constexpr int kTileSource = 64;  // source rows that are filtered along the columns at a time
constexpr int kTileThreads = kTileColumns * kTileLanes;

struct PrepareArgs {
  PrepareImage image;
  Axis down, across;
  int rows, columns;             // of the target
  bool keep_rows, keep_columns;  // weights kept
};

// A direction says which source pixels [begin, end) enter a target pixel, and with which weight.
struct PrepareForward {
  static constexpr bool forward = true;
  static int64_t most_taps(const Axis& axis) { return int64_t(2 * axis.support) + 2; }
  static ND_HD int64_t begin(const Axis& axis, int64_t to) { return tap_begin(axis, to); }
  static ND_HD int64_t end(const Axis& axis, int64_t to) { return tap_end(axis, to); }
  static ND_HD double total(const Axis& axis, int64_t to) { return tap_total(axis, to); }
  static ND_HD double weight(const Axis& axis, int64_t to, int64_t from) { return tap_weight(axis, to, from); }
};

struct PrepareBackward {
  static constexpr bool forward = false;
  static int64_t most_taps(const Axis& axis) { return int64_t(2 * axis.support / axis.scale) + 4; }
  static ND_HD int64_t begin(const Axis& axis, int64_t to) { return cover_begin(axis, to); }
  static ND_HD int64_t end(const Axis& axis, int64_t to) { return cover_end(axis, to); }
  static ND_HD double total(const Axis&, int64_t) { return 1; }
  static ND_HD double weight(const Axis& axis, int64_t to, int64_t from) {
    return covers(axis, from, to) ? tap_weight(axis, from, to) / tap_total(axis, from) : 0.0;
  }
};

// The taps of N target rows, or columns.
template <class A, int N> struct Lines {
  double scale[N];
  int begin[N], end[N];
  A kept[kTileTaps][N];
};

template <class A> struct PrepareShared {
  Lines<A, kTileColumns> columns;
  Lines<A, kTileRows> rows;
  A filtered[kTileSource][kTileColumns];
};

template <class Way, class A, int N>
__device__ __forceinline__ void find_taps(Lines<A, N>& lines, const Axis& axis, int first, int extent, int line) {
  const bool inside = line >= 0 && line < N && first + line < extent;
  if (line < 0 || line >= N) return;
  lines.begin[line] = inside ? int(Way::begin(axis, first + line)) : 0;
  lines.end[line] = inside ? int(Way::end(axis, first + line)) : 0;
  lines.scale[line] = inside ? 1.0 / Way::total(axis, first + line) : 0;
}

template <class Way, class A, int N>
__device__ __forceinline__ void keep_weights(Lines<A, N>& lines, const Axis& axis, int first) {
#pragma unroll 1
  for (int i = int(threadIdx.x); i < kTileTaps * N; i += kTileThreads) {
    const int line = i % N, from = lines.begin[line] + i / N;
    if (from < lines.end[line]) lines.kept[i / N][line] = A(Way::weight(axis, first + line, from) * lines.scale[line]);
  }
}

template <class Way, class A, int N>
__device__ __forceinline__ A line_weight(const Lines<A, N>& lines, const Axis& axis, bool kept, int first, int line,
                                         int from) {
  if (kept) return lines.kept[from - lines.begin[line]][line];
  return A(Way::weight(axis, first + line, from) * lines.scale[line]);
}

// The plane (one channel of one image) that the filter reads.
template <class Way, class T> struct PrepareSource {
  const T* plane;
  int64_t row_stride, column_stride;

  __device__ __forceinline__ PrepareSource(const PrepareImage& a, int64_t image, int channel) {
    const int64_t* stride = Way::forward ? a.image_stride : a.grad_stride;
    plane = static_cast<const T*>(Way::forward ? a.image : a.grad) + image * stride[0] + channel * stride[1];
    row_stride = stride[2];
    column_stride = stride[3];
  }
  __device__ __forceinline__ Acc<T> at(int row, int column) const {
    const Acc<T> value = widen(plane[row * row_stride + column * column_stride]);
    return Way::forward ? unit_range<Acc<T>>(value) : value;
  }
};

// `n` source rows from `row` on, filtered along the columns, into shared memory; a thread takes every eighth row.
template <class Way, class T>
__device__ __forceinline__ void filter_columns(const PrepareArgs& p, const PrepareSource<Way, T>& source, int first,
                                               int row, int n, PrepareShared<Acc<T>>& s) {
  constexpr int kOwn = kTileSource / kTileLanes;
  const int x = int(threadIdx.x) % kTileColumns, lane = int(threadIdx.x) / kTileColumns;
  const int end = s.columns.end[x];
  Acc<T> sum[kOwn] = {};
#pragma unroll 1
  for (int from = s.columns.begin[x]; from < end; ++from) {
    const Acc<T> weight = line_weight<Way>(s.columns, p.across, p.keep_columns, first, x, from);
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      if (lane + j * kTileLanes < n) sum[j] += weight * source.at(row + lane + j * kTileLanes, from);
    }
  }
#pragma unroll
  for (int j = 0; j < kOwn; ++j) s.filtered[lane + j * kTileLanes][x] = sum[j];
}

// What the filtered source rows [row, row + n) contribute to the tile's target row `line`.
template <class Way, class A>
__device__ __forceinline__ A filter_rows(const PrepareArgs& p, int first, int line, int row, int n,
                                         const PrepareShared<A>& s) {
  A sum = 0;
  const int end = int(smaller(s.rows.end[line], row + n));
#pragma unroll 1
  for (int from = int(larger(s.rows.begin[line], row)); from < end; ++from) {
    const A weight = line_weight<Way>(s.rows, p.down, p.keep_rows, first, line, from);
    sum += weight * s.filtered[from - row][int(threadIdx.x) % kTileColumns];
  }
  return sum;
}

template <class Way, class T>
__device__ __forceinline__ void prepare_finish(const PrepareImage& a, int64_t image, int channel, int row, int column,
                                               Acc<T> value) {
  using A = Acc<T>;
  if constexpr (Way::forward) {
    value = (value - A(a.mean[channel])) / A(a.std[channel]);
  } else {
    const int64_t* s = a.image_stride;
    const T* pixel = static_cast<const T*>(a.image) + image * s[0] + channel * s[1] + row * s[2] + column * s[3];
    value = value / A(a.std[channel]) * unit_slope<A>(widen(*pixel));
  }
  const int64_t* s = a.out_stride;
  static_cast<T*>(a.out)[image * s[0] + channel * s[1] + row * s[2] + column * s[3]] = narrow<T, A>(value);
}

// One tile of target pixels from (row0, column0) on, in one plane.
template <class Way, class T>
__device__ __forceinline__ void prepare_tile(const PrepareArgs& p, int row0, int column0, int64_t image, int channel,
                                             PrepareShared<Acc<T>>& s) {
  const PrepareSource<Way, T> source(p.image, image, channel);
  const int x = int(threadIdx.x) % kTileColumns, lane = int(threadIdx.x) / kTileColumns;
  const int last = s.rows.end[smaller(kTileRows, p.rows - row0) - 1];
  Acc<T> above = 0, below = 0;
  for (int row = s.rows.begin[0]; row < last; row += kTileSource) {
    const int n = int(smaller(last - row, kTileSource));
    __syncthreads();  // the rows before may still be read
    filter_columns(p, source, column0, row, n, s);
    __syncthreads();
    above += filter_rows<Way>(p, row0, lane, row, n, s);
    below += filter_rows<Way>(p, row0, lane + kTileLanes, row, n, s);
  }
  if (column0 + x >= p.columns) return;
  const int upper = row0 + lane, lower = upper + kTileLanes;
  if (upper < p.rows) prepare_finish<Way, T>(p.image, image, channel, upper, column0 + x, above);
  if (lower < p.rows) prepare_finish<Way, T>(p.image, image, channel, lower, column0 + x, below);
}

// Blocks per multiprocessor that the registers must leave room for; more would spill.
template <class Way, class T> constexpr int kTileBlocks = Way::forward && sizeof(T) <= 4 ? 3 : 2;

template <class Way, class T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<Way, T>)
    prepare_image_kernel(const __grid_constant__ PrepareArgs p) {
  auto& s = *shared_memory<PrepareShared<Acc<T>>>();
  const int64_t across = ceil_div(p.columns, kTileColumns), tiles = across * ceil_div(p.rows, kTileRows);
  const int thread = int(threadIdx.x);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int row0 = int(tile / across) * kTileRows, column0 = int(tile % across) * kTileColumns;
    __syncthreads();  // the tile before may still be reading
    find_taps<Way>(s.columns, p.across, column0, p.columns, thread);
    find_taps<Way>(s.rows, p.down, row0, p.rows, thread - 64);  // warps of their own
    __syncthreads();
    if (p.keep_columns) keep_weights<Way>(s.columns, p.across, column0);
    if (p.keep_rows) keep_weights<Way>(s.rows, p.down, row0);
    for (int64_t plane = blockIdx.y; plane < 3 * p.image.batch; plane += gridDim.y) {
      prepare_tile<Way, T>(p, row0, column0, plane / 3, int(plane % 3), s);
    }
  }
}

// ---- launchers -----------------------------------------------------------------------------------------------

template <class Way> const char* launch_prepare(const PrepareImage& a, void* stream) {
  const int64_t rows = Way::forward ? a.size : a.height, columns = Way::forward ? a.size : a.width;
  if (a.batch == 0 || rows == 0 || columns == 0) return nullptr;
  if (larger(larger(a.height, a.width), a.size) > INT32_MAX / 2) {
    return "image height, width and size must be below 2^30, got more. Cut the image into parts.";
  }
  const Axis down = make_axis(a.height, a.size), across = make_axis(a.width, a.size);
  const PrepareArgs args = {a, down, across, int(rows), int(columns), Way::most_taps(down) <= kTileTaps,
                            Way::most_taps(across) <= kTileTaps};
  const int64_t tiles = ceil_div(columns, kTileColumns) * ceil_div(rows, kTileRows);
  // enough blocks to fill a large GPU several times; more planes per block use its weights more often
  const int64_t planes = smaller(smaller(3 * a.batch, ceil_div(4096, tiles)), kMaxGridY);
  return for_type(a.type, [&](auto tag) {
    using T = decltype(tag);
    const Grid grid = {smaller(tiles, kMaxGridX), planes, kTileThreads, sizeof(PrepareShared<Acc<T>>), 1};
    return launch(prepare_image_kernel<Way, T>, grid, stream, args);
  });
}

const char* prepare_image_cuda(const PrepareImage& a, void* stream) {
  return launch_prepare<PrepareForward>(a, stream);
}

const char* prepare_image_backward_cuda(const PrepareImage& a, void* stream) {
  return launch_prepare<PrepareBackward>(a, stream);
}

}  // namespace nd
