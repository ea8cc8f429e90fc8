// GroupNorm and SiLU on channels-last tensors, forward.
#pragma once

#include "group_norm_parts.cuh"

namespace nd {

// ---- kernels -----------------------------------------------------------------------------------------------------

// Moments of one thread's elements in pixels [row, end) of an image: mean first, then deviations from it (the second
// reading comes from the cache); what rounding left in the mean is put right.
template <int V, class T>
__device__ __forceinline__ Moments thread_moments(const T* x, const NormPlace& place, int64_t row, int64_t end,
                                                  int64_t channels) {
  using A = Acc<T>;
  A value[V], sum = 0, rest = 0, squares = 0;
  int64_t count = 0;
  for (int64_t r = row + place.lane; r < end; r += place.lanes) {
    for (int u = place.x; u < place.width; u += place.columns, count += V) {
      load<V>(x + r * channels + int64_t(u) * V, value);
#pragma unroll
      for (int j = 0; j < V; ++j) sum += value[j];
    }
  }
  if (count == 0) return {0, 0, 0};
  const A mean = sum / A(count);
  for (int64_t r = row + place.lane; r < end; r += place.lanes) {
    for (int u = place.x; u < place.width; u += place.columns) {
      load<V>(x + r * channels + int64_t(u) * V, value);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const A deviation = value[j] - mean;
        rest += deviation;
        squares += deviation * deviation;
      }
    }
  }
  const double shift = double(rest) / double(count);
  return {double(count), double(mean) + shift, double(squares) - double(rest) * shift};
}

template <int V, class T>
__global__ void __launch_bounds__(kNormThreads, kNormResident<T>)
    norm_partial_kernel(const __grid_constant__ NormArgs p) {
  Moments* values = shared_memory<Moments>();
  const GroupNorm& a = p.norm;
  const int64_t begin = blockIdx.x * p.plan.rows, end = smaller(a.pixels, begin + p.plan.rows);
  for (int64_t item = blockIdx.y; item < a.batch * p.plan.bundles; item += gridDim.y) {
    const int64_t image = item / p.plan.bundles, step = group_norm_rows(a);
    const NormPlace place(p, int(item % p.plan.bundles));
    const T* x = static_cast<const T*>(a.x) + image * a.pixels * a.channels + place.first_group * p.plan.units * V;
    Moments total = {0, 0, 0};
    if (place.active) {
#pragma unroll 1
      for (int64_t row = begin; row < end; row += step) {
        total = merge(total, thread_moments<V>(x, place, row, smaller(end, row + step), a.channels));
      }
    }
    __syncthreads();  // the item before may still be reading
    values[threadIdx.x] = total;
    total_over_block(values, p.plan, place, Merge());
    if (place.lane == 0 && place.x % p.plan.units == 0) {
      const int64_t index = (image * p.plan.parts + blockIdx.x) * a.groups + place.first_group + place.group;
      a.workspace[2 * index] = values[threadIdx.x].mean;
      a.workspace[2 * index + 1] = values[threadIdx.x].m2;
    }
  }
}

template <class A> struct NormShared {
  Moments values[kNormThreads];
  A mean[kNormThreads], rstd[kNormThreads];
};

// Mean and 1 / standard deviation of the bundle's groups into shared memory; the first block writes them out.
template <int V, class T>
__device__ __forceinline__ void bundle_statistics(const NormArgs& p, const NormPlace& place, int64_t image,
                                                  NormShared<Acc<T>>& s) {
  const GroupNorm& a = p.norm;
  const auto read = [&](int64_t index, int64_t part) {
    const int64_t pixels = smaller(p.plan.rows, a.pixels - part * p.plan.rows);
    return Moments{double(pixels * p.plan.units * V), a.workspace[2 * index], a.workspace[2 * index + 1]};
  };
  __syncthreads();  // the item before may still be reading
  total_over_parts(p, place, image, s.values, read, Merge());
  const int thread = int(threadIdx.x);
  if (thread < place.n_groups) {
    const Moments total = s.values[thread];
    s.mean[thread] = Acc<T>(total.mean);
    s.rstd[thread] = Acc<T>(1.0 / sqrt(total.m2 / total.count + a.eps));
    if (blockIdx.x == 0) {
      const NormTensors<T> t(a);
      t.mean[image * a.groups + place.first_group + thread] = s.mean[thread];
      t.rstd[image * a.groups + place.first_group + thread] = s.rstd[thread];
    }
  }
  __syncthreads();
}

// One pack of channels in every pixel that is this thread's.
template <int V, class T>
__device__ __forceinline__ void apply_column(const NormArgs& p, const NormPlace& place, int64_t image, int u,
                                             Acc<T> mean, Acc<T> rstd) {
  const GroupNorm& a = p.norm;
  const NormTensors<T> t(a);
  const int channel = (place.first_group * p.plan.units + u) * V;
  const NormAffine<V, Acc<T>> affine(t.weight + channel, t.bias + channel, rstd);
  const int64_t step = int64_t(gridDim.x) * place.lanes, base = image * a.pixels * a.channels + channel;
#pragma unroll 2
  for (int64_t r = int64_t(blockIdx.x) * place.lanes + place.lane; r < a.pixels; r += step) {
    Acc<T> value[V];
    load<V>(t.x + base + r * a.channels, value);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      value[j] = normalised(value[j], mean, affine.gain[j], affine.bias[j]);
      if (a.silu) value[j] = silu<Acc<T>>(value[j]);
    }
    store<V>(t.out + base + r * a.channels, value);
  }
}

template <int V, class T>
__global__ void __launch_bounds__(kNormThreads, kNormResident<T>)
    norm_apply_kernel(const __grid_constant__ NormArgs p) {
  auto& s = *shared_memory<NormShared<Acc<T>>>();
  for (int64_t item = blockIdx.y; item < p.norm.batch * p.plan.bundles; item += gridDim.y) {
    const int64_t image = item / p.plan.bundles;
    const NormPlace place(p, int(item % p.plan.bundles));
    bundle_statistics<V, T>(p, place, image, s);
    if (!place.active) continue;
    for (int u = place.x; u < place.width; u += place.columns) {
      apply_column<V, T>(p, place, image, u, s.mean[place.group], s.rstd[place.group]);
    }
  }
}

// ---- launcher --------------------------------------------------------------------------------------------------

template <int V, class T> NormPass norm_forward_pass() {
  return {norm_partial_kernel<V, T>, norm_apply_kernel<V, T>, kNormThreads * sizeof(Moments),
          sizeof(NormShared<Acc<T>>)};
}

const char* group_norm_cuda(const GroupNorm& a, void* stream) {
  if (norm_empty(a)) return nullptr;
  if (const char* refused = norm_refused(a)) return refused;
  return for_type(a.type, [&](auto tag) {
    using T = decltype(tag);
    return norm_packs<T>(a) ? launch_norm(a, kNormPack, norm_forward_pass<kNormPack, T>(), stream)
                            : launch_norm(a, 1, norm_forward_pass<1, T>(), stream);
  });
}

}  // namespace nd
