// All feature layers, loss and gradient, in one launch: a cluster of blocks per image, no atomics.
#pragma once

#include <atomic>

#include "launch.cuh"

namespace nd {

// ---- kernel --------------------------------------------------------------------------------------------------

constexpr int kClusterBlocks = 8, kClusterThreads = 512, kAloneThreads = 1024;

// Strided without the outermost extent, which element_offset does not read: 24 layers then fit into 4 KB.
struct LossMap { int64_t size[kDims - 1], stride[kDims]; };

struct LossLayer {
  const void* feature;
  const void* target;
  void* grad;
  LossMap feature_map, target_map;
  int64_t feature_image, target_image, numel;
  bool linear;
};

struct LossArgs {
  LossLayer layer[kMaxLayers];
  const void* weights;
  void* loss;
  int64_t batch, weights_image;
  double grad_scale;
  int n_layers;
};
static_assert(sizeof(LossArgs) <= 4096, "kernel arguments before CUDA 12.1");

__device__ __forceinline__ int64_t map_offset(const LossMap& map, int64_t linear) {
  const Strided whole = {{0, map.size[0], map.size[1], map.size[2]},
                         {map.stride[0], map.stride[1], map.stride[2], map.stride[3]}};
  return element_offset(whole, linear);
}

// Gradient of N packs of V neighbours, `step` apart; returns their sum of squares.  All are loaded before the first is
// stored, so that their latencies overlap.
template <int V, int N, class T, class G>
__device__ __forceinline__ double pack_loss(const T* __restrict__ feature, const G* __restrict__ target,
                                            T* __restrict__ grad, Acc<T> factor, int step) {
  Acc<T> f[N][V], g[N][V], sum = 0;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    load<V>(feature + n * step, f[n]);
    load<V>(target + n * step, g[n]);
  }
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const Acc<T> difference = f[n][j] - g[n][j];
      sum += difference * difference;
      f[n][j] = feature_gradient(difference, factor);
    }
    store<V>(grad + n * step, f[n]);
  }
  return double(sum);
}

struct LossShare {
  double sum;
  int64_t first;  // where this thread goes on in the next layer
};

// The elements from `i` on, one by one.  A function of its own: its divisions would take the packs' registers.
template <class T, class G>
__device__ __noinline__ LossShare element_loss(const LossLayer& layer, const T* feature, const G* target, T* grad,
                                            Acc<T> factor, int64_t i, int lanes) {
  double sum = 0;
  for (; i < layer.numel; i += lanes) {
    const int64_t f = layer.linear ? i : map_offset(layer.feature_map, i);
    const int64_t g = layer.linear ? i : map_offset(layer.target_map, i);
    sum += pack_loss<1, 1>(feature + f, target + g, grad + i, factor, 0);
  }
  return {sum, i - layer.numel};
}

// One thread's share of one layer: units first, first + lanes, ...; a unit is a pack, or an element where a pack
// does not fit.  Moves `first` on, so that the next layer goes on with the thread after this layer's last.
template <class T, class G>
__device__ __forceinline__ double layer_loss(const LossLayer& layer, int64_t image, Acc<T> weight, double grad_scale,
                                             int& first, int lanes) {
  constexpr int V = 16 / int(sizeof(T));
  const T* feature = static_cast<const T*>(layer.feature) + image * layer.feature_image;
  const G* target = static_cast<const G*>(layer.target) + image * layer.target_image;
  T* grad = static_cast<T*>(layer.grad) + image * layer.numel;
  const Acc<T> factor = Acc<T>(feature_factor(double(weight), layer.numel, grad_scale));
  const bool vector = layer.linear && aligned(feature, 16) && aligned(grad, 16) &&
                      aligned(target, pack_alignment<G, V>());
  const int64_t packs = vector ? layer.numel / V : 0, units = layer.numel - packs * (V - 1);
  double sum = 0;
  int64_t unit = first;
  if constexpr (sizeof(T) <= 4) {  // with doubles two packs would take too many registers
#pragma unroll 1
    for (; unit + lanes < packs; unit += 2 * lanes) {
      sum += pack_loss<V, 2>(feature + unit * V, target + unit * V, grad + unit * V, factor, lanes * V);
    }
  }
#pragma unroll 1
  for (; unit < packs; unit += lanes) {
    sum += pack_loss<V, 1>(feature + unit * V, target + unit * V, grad + unit * V, factor, 0);
  }
  first = int(unit - units);
  if (unit < units) {
    const LossShare rest = element_loss(layer, feature, target, grad, factor, unit + packs * (V - 1), lanes);
    sum += rest.sum;
    first = int(rest.first);
  }
  return sum * (double(weight) / double(layer.numel));
}

template <class T, class G>
__global__ void __launch_bounds__(kAloneThreads) feature_loss_kernel(const __grid_constant__ LossArgs a) {
  double* partial = shared_memory<double>();
  const int blocks = Cluster::blocks(), rank = Cluster::rank(), thread = int(threadIdx.x);
  const int lanes = blocks * int(blockDim.x);
  for (int64_t image = blockIdx.x / blocks; image < a.batch; image += gridDim.x / blocks) {
    const Acc<T>* weights = static_cast<const Acc<T>*>(a.weights) + image * a.weights_image;
    int first = rank * int(blockDim.x) + thread;
    double loss = 0;
    for (int l = 0; l < a.n_layers; ++l) {
      loss += layer_loss<T, G>(a.layer[l], image, weights[l], a.grad_scale, first, lanes);
    }
    partial[thread] = loss;
    tree_total(partial, thread, thread, int(blockDim.x), 1, Plus());
    Cluster::sync();
    if (rank == 0 && thread == 0) {
      double total = 0;
      for (int r = 0; r < blocks; ++r) total += *Cluster::shared_of(partial, r);
      static_cast<Acc<T>*>(a.loss)[image] = Acc<T>(total);
    }
    Cluster::sync();  // nobody leaves, or begins the next image, before rank 0 has read
  }
}

// ---- launcher ------------------------------------------------------------------------------------------------

inline LossMap loss_map(const Strided& from) {
  return {{from.size[1], from.size[2], from.size[3]},
          {from.stride[0], from.stride[1], from.stride[2], from.stride[3]}};
}

inline LossArgs loss_args(const FeatureLoss& a) {
  LossArgs args = {};
  for (int l = 0; l < a.n_layers; ++l) {
    const Layer& from = a.layer[l];
    args.layer[l] = {from.feature, from.target, from.grad, loss_map(from.feature_map), loss_map(from.target_map),
                     from.feature_image, from.target_image, from.numel, from.linear};
  }
  args.weights = a.weights;
  args.loss = a.loss;
  args.batch = a.batch;
  args.weights_image = a.weights_image;
  args.grad_scale = a.grad_scale;
  args.n_layers = a.n_layers;
  return args;
}

// Whether the code that this device runs was compiled for clusters: not the device's own capability, since PTX for
// an older architecture runs on it as well.  Asked once per device.
inline cudaError_t has_clusters(bool& answer) {
  constexpr int kDevices = 64;
  static std::atomic<int> known[kDevices];  // 0: not asked yet, 1: no, 2: yes
  int device = 0;
  const cudaError_t found = cudaGetDevice(&device);
  if (found != cudaSuccess) return found;
  const int before = device < kDevices ? known[device].load() : 0;
  answer = before == 2;
  if (before != 0) return cudaSuccess;
  cudaFuncAttributes attributes = {};
  const cudaError_t asked = cudaFuncGetAttributes(&attributes, feature_loss_kernel<float, float>);
  answer = attributes.ptxVersion >= 90;
  if (asked == cudaSuccess && device < kDevices) known[device].store(answer ? 2 : 1);
  return asked;
}

template <class T, class G> const char* launch_feature_loss(const FeatureLoss& a, void* stream) {
  bool clusters = false;
  const cudaError_t asked = has_clusters(clusters);
  if (asked != cudaSuccess) return launch_sentence(asked);
  const int blocks = clusters ? kClusterBlocks : 1, threads = clusters ? kClusterThreads : kAloneThreads;
  const int64_t images = smaller(a.batch, kMaxGridX / blocks);
  const Grid grid = {images * blocks, 1, threads, threads * sizeof(double), blocks};
  return launch(feature_loss_kernel<T, G>, grid, stream, loss_args(a));
}

const char* feature_loss_grad_cuda(const FeatureLoss& a, void* stream) {
  if (a.batch == 0) return nullptr;
  return for_type(a.feature_type, [&](auto tag) {
    using T = decltype(tag);
    return a.target_type == a.feature_type ? launch_feature_loss<T, T>(a, stream)
                                           : launch_feature_loss<T, float>(a, stream);
  });
}

}  // namespace nd
