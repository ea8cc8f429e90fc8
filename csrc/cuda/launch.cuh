// What the kernels stand on: the launch, shared memory, clusters, vector access and one fixed-order reduction.
#pragma once

#include <cstdio>
#include <type_traits>

#ifdef __CUDACC__
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#else
#include "cuda_on_cpu.h"  // tests/csrc: the same kernels on fibers of one processor
#endif

#include "../kernels.h"

namespace nd {

#ifdef __CUDACC__
// All shared memory is dynamic: one address that a cluster can translate from block to block.
template <class T> __device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
}

// A cluster of blocks; below sm_90, which has none, the block alone.
struct Cluster {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static __device__ int blocks() { return int(cooperative_groups::this_cluster().num_blocks()); }
  static __device__ int rank() { return int(cooperative_groups::this_cluster().block_rank()); }
  static __device__ void sync() { cooperative_groups::this_cluster().sync(); }
  template <class T> static __device__ T* shared_of(T* mine, int rank) {
    return cooperative_groups::this_cluster().map_shared_rank(mine, rank);
  }
#else
  static __device__ int blocks() { return 1; }
  static __device__ int rank() { return 0; }
  static __device__ void sync() { __syncthreads(); }
  template <class T> static __device__ T* shared_of(T* mine, int) { return mine; }
#endif
};
#endif

// ---- launch --------------------------------------------------------------------------------------------------

constexpr int64_t kMaxGridX = 2147483647, kMaxGridY = 65535;

ND_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
ND_HD int64_t smaller(int64_t a, int64_t bound) { return a < bound ? a : bound; }
ND_HD int64_t larger(int64_t a, int64_t bound) { return a > bound ? a : bound; }

struct Grid {
  int64_t x, y;
  int threads;
  size_t shared;  // bytes
  int cluster;    // blocks along x; 1 for none
};

inline const char* launch_sentence(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  static thread_local char text[320];
  snprintf(text, sizeof(text),
           "the kernel must be accepted by the CUDA device, got \"%s\". Compare the GPU with the architectures in "
           "core.networks.kernels.ops.backend_info(), or use the reference path (NEURALDIFFUSER_KERNELS=reference).",
           cudaGetErrorString(error));
  return text;
}

template <class Args> const char* launch(void (*kernel)(Args), const Grid& grid, void* stream, const Args& args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(grid.x), unsigned(grid.y));
  config.blockDim = dim3(unsigned(grid.threads));
  config.dynamicSmemBytes = grid.shared;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = unsigned(grid.cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = grid.cluster > 1 ? 1 : 0;
  const cudaError_t launched = cudaLaunchKernelEx(&config, kernel, args);
  const cudaError_t last = cudaGetLastError();  // also clears it
  return launch_sentence(launched != cudaSuccess ? launched : last);
}

// call(T{}) with the C++ type of `type`.
template <class F> const char* for_type(Type type, F call) {
  switch (type) {
    case Type::f32: return call(float{});
    case Type::f64: return call(double{});
    case Type::f16: return call(half_t{});
    case Type::bf16: return call(bfloat_t{});
  }
  return "type must be float32, float64, float16 or bfloat16. Convert the tensor first.";
}

// ---- vector access -------------------------------------------------------------------------------------------

template <class T> using Acc = typename Accumulator<T>::type;

// Up to 16 bytes move at once: the layout that the loads and stores of the instruction set take.
template <int N> struct alignas(N % 4 == 0 ? 16 : N % 2 == 0 ? 8 : 4) Words { uint32_t at[N]; };

template <class T, int V> ND_HD constexpr int pack_alignment() {
  return int(sizeof(T)) * V < 16 ? int(sizeof(T)) * V : 16;
}

ND_HD bool aligned(const void* pointer, int bytes) {
  return (reinterpret_cast<uintptr_t>(pointer) & (bytes - 1)) == 0;
}

template <class T, int N> ND_HD T word_element(const Words<N>& raw, int j) {
  if constexpr (sizeof(T) == 2) {
    return T{uint16_t(raw.at[j / 2] >> (16 * (j % 2)))};
  } else if constexpr (sizeof(T) == 4) {
    return bit_cast<T>(raw.at[j]);
  } else {
    return bit_cast<T>(uint64_t(raw.at[2 * j]) | uint64_t(raw.at[2 * j + 1]) << 32);
  }
}

template <int V, class T, class A> __device__ __forceinline__ void load(const T* __restrict__ from, A (&to)[V]) {
  if constexpr (V == 1) {
    to[0] = widen(*from);
  } else {
    const auto raw = *reinterpret_cast<const Words<int(sizeof(T)) * V / 4>*>(from);
#pragma unroll
    for (int j = 0; j < V; ++j) to[j] = widen(word_element<T>(raw, j));
  }
}

template <int V, class T> __device__ __forceinline__ void store(T* __restrict__ to, const Acc<T> (&from)[V]) {
  if constexpr (V == 1) {
    *to = narrow<T, Acc<T>>(from[0]);
  } else {
    struct alignas(pack_alignment<T, V>()) Pack { T at[V]; } pack;
#pragma unroll
    for (int j = 0; j < V; ++j) pack.at[j] = narrow<T, Acc<T>>(from[j]);
    using Raw = Words<int(sizeof(T)) * V / 4>;
    *reinterpret_cast<Raw*>(to) = bit_cast<Raw>(pack);
  }
}

// ---- reduction -----------------------------------------------------------------------------------------------

struct Plus {
  template <class T> __device__ T operator()(const T& a, const T& b) const { return a + b; }
};

// values[at] becomes the total of values[at], values[at + stride], ... (`count` of them) where `place` is 0; a
// tree whose shape depends on `count` alone.  Every thread of the block calls it; place >= count: takes no part.
template <class T, class Join>
__device__ void tree_total(T* values, int at, int place, int count, int stride, Join join) {
  int half = 1;
  while (half < count) half *= 2;
  for (half /= 2; half > 0; half /= 2) {
    __syncthreads();
    if (place < half && place + half < count) values[at] = join(values[at], values[at + half * stride]);
  }
  __syncthreads();
}

}  // namespace nd
