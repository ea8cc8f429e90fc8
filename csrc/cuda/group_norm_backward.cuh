// GroupNorm and SiLU, gradient with respect to the input: recomputes everything but mean and deviation.
#pragma once

#include "group_norm_parts.cuh"

namespace nd {

// ---- kernels ----------------------------------------------------------------------------------------------------

// dL/du of one pack: the incoming gradient through SiLU.
template <int V, class A>
__device__ __forceinline__ void through_silu(const GroupNorm& a, const A (&x)[V], A mean,
                                             const NormAffine<V, A>& affine, A (&grad)[V]) {
  if (!a.silu) return;
#pragma unroll
  for (int j = 0; j < V; ++j) grad[j] *= silu_slope<A>(normalised(x[j], mean, affine.gain[j], affine.bias[j]));
}

// Adds the sums of du w and of du w (x - mean) over pixels [row, end) of one pack of channels.
template <int V, class T>
__device__ __forceinline__ void add_column(const NormArgs& p, const NormPlace& place, int64_t image, int u,
                                           int64_t row, int64_t end, NormSums& sums) {
  using A = Acc<T>;
  const GroupNorm& a = p.norm;
  const NormTensors<T> t(a);
  const int64_t statistic = image * a.groups + place.first_group + place.group;
  const A mean = t.mean[statistic];
  const int channel = (place.first_group * p.plan.units + u) * V;
  const NormAffine<V, A> affine(t.weight + channel, t.bias + channel, t.rstd[statistic]);
  const int64_t base = image * a.pixels * a.channels + channel;
#pragma unroll 1
  for (int64_t r = row + place.lane; r < end; r += place.lanes) {
    A x[V], du[V], level = 0, tilt = 0;
    load<V>(t.x + base + r * a.channels, x);
    load<V>(t.grad + base + r * a.channels, du);
    through_silu<V, A>(a, x, mean, affine, du);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      level += du[j] * affine.weight[j];
      tilt += du[j] * affine.weight[j] * (x[j] - mean);
    }
    sums = sums + NormSums{double(level), double(tilt)};
  }
}

template <int V, class T>
__global__ void __launch_bounds__(kNormThreads, kNormResident<T>)
    norm_backward_partial_kernel(const __grid_constant__ NormArgs p) {
  NormSums* values = shared_memory<NormSums>();
  const GroupNorm& a = p.norm;
  const int64_t begin = blockIdx.x * p.plan.rows, end = smaller(a.pixels, begin + p.plan.rows);
  for (int64_t item = blockIdx.y; item < a.batch * p.plan.bundles; item += gridDim.y) {
    const int64_t image = item / p.plan.bundles;
    const NormPlace place(p, int(item % p.plan.bundles));
    NormSums sums = {0, 0};
    if (place.active) {
#pragma unroll 1
      for (int u = place.x; u < place.width; u += place.columns) {
        add_column<V, T>(p, place, image, u, begin, end, sums);
      }
    }
    __syncthreads();  // the item before may still be reading
    values[threadIdx.x] = sums;
    total_over_block(values, p.plan, place, Plus());
    if (place.lane == 0 && place.x % p.plan.units == 0) {
      const int64_t statistic = image * a.groups + place.first_group + place.group;
      const int64_t index = (image * p.plan.parts + blockIdx.x) * a.groups + place.first_group + place.group;
      a.workspace[2 * index] = values[threadIdx.x].level;
      a.workspace[2 * index + 1] = values[threadIdx.x].tilt * double(NormTensors<T>(a).rstd[statistic]);
    }
  }
}

// One pack of channels in every pixel that is this thread's.
template <int V, class T>
__device__ __forceinline__ void apply_backward_column(const NormArgs& p, const NormPlace& place, int64_t image, int u,
                                                      const NormSums& total) {
  using A = Acc<T>;
  const GroupNorm& a = p.norm;
  const NormTensors<T> t(a);
  const int64_t statistic = image * a.groups + place.first_group + place.group;
  const double numel = double(a.pixels * p.plan.units * V);
  const A mean = t.mean[statistic], rstd = t.rstd[statistic];
  const A level = rstd * A(total.level / numel), tilt = rstd * rstd * A(total.tilt / numel);
  const int channel = (place.first_group * p.plan.units + u) * V;
  const NormAffine<V, A> affine(t.weight + channel, t.bias + channel, rstd);
  const int64_t step = int64_t(gridDim.x) * place.lanes, base = image * a.pixels * a.channels + channel;
#pragma unroll 1
  for (int64_t r = int64_t(blockIdx.x) * place.lanes + place.lane; r < a.pixels; r += step) {
    A x[V], du[V];
    load<V>(t.x + base + r * a.channels, x);
    load<V>(t.grad + base + r * a.channels, du);
    through_silu<V, A>(a, x, mean, affine, du);
#pragma unroll
    for (int j = 0; j < V; ++j) du[j] = norm_gradient(x[j], du[j], mean, affine.gain[j], level, tilt);
    store<V>(t.out + base + r * a.channels, du);
  }
}

template <int V, class T>
__global__ void __launch_bounds__(kNormThreads, kNormResident<T>)
    norm_backward_apply_kernel(const __grid_constant__ NormArgs p) {
  NormSums* totals = shared_memory<NormSums>();
  const double* workspace = p.norm.workspace;
  const auto read = [&](int64_t index, int64_t) { return NormSums{workspace[2 * index], workspace[2 * index + 1]}; };
  for (int64_t item = blockIdx.y; item < p.norm.batch * p.plan.bundles; item += gridDim.y) {
    const int64_t image = item / p.plan.bundles;
    const NormPlace place(p, int(item % p.plan.bundles));
    __syncthreads();  // the item before may still be reading
    total_over_parts(p, place, image, totals, read, Plus());
    if (!place.active) continue;
    for (int u = place.x; u < place.width; u += place.columns) {
      apply_backward_column<V, T>(p, place, image, u, totals[place.group]);
    }
  }
}

// ---- launcher --------------------------------------------------------------------------------------------------

template <int V, class T> NormPass norm_backward_pass() {
  return {norm_backward_partial_kernel<V, T>, norm_backward_apply_kernel<V, T>, kNormThreads * sizeof(NormSums),
          kNormThreads * sizeof(NormSums)};
}

const char* group_norm_backward_cuda(const GroupNorm& a, void* stream) {
  if (norm_empty(a)) return nullptr;
  if (const char* refused = norm_refused(a)) return refused;
  return for_type(a.type, [&](auto tag) {
    using T = decltype(tag);
    return norm_packs<T>(a) ? launch_norm(a, kNormPack, norm_backward_pass<kNormPack, T>(), stream)
                            : launch_norm(a, 1, norm_backward_pass<1, T>(), stream);
  });
}

}  // namespace nd
