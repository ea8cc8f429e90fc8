// What both directions of GroupNorm share: how threads cover channels and pixels, totals in a fixed order, launches.
// Two launches each way: partial sums, then apply, where every block adds up the parts of its groups.
#pragma once

#include "launch.cuh"

namespace nd {

// ---- how threads cover the channels ----------------------------------------------------------------------------

constexpr int kNormThreads = 256;
constexpr int kNormPack = 4;         // neighbouring channels of one thread, where the groups allow it
constexpr int64_t kNormParts = 256;  // partial sums per image and group that the second launch adds up
constexpr int64_t kNormBlocks = 2112;  // several for every multiprocessor of a large GPU

// The pixels of an image in parts (whole multiples of group_norm_rows), its groups in bundles that one block takes.
// The bits of the sums depend on these, and these on the tensor's shape alone.
struct NormPlan {
  int units;    // packs per group and pixel
  int bundle;   // groups that fit side by side into a block
  int bundles;
  int64_t rows, parts;  // pixels per part; parts
};

inline NormPlan norm_plan(const GroupNorm& a, int pack) {
  const int units = int(a.channels / a.groups) / pack;
  const int bundle = int(smaller(a.groups, larger(1, kNormThreads / units)));
  const int64_t rows = ceil_div(group_norm_chunks(a), kNormParts) * group_norm_rows(a);
  return {units, bundle, int(ceil_div(a.groups, bundle)), rows, ceil_div(a.pixels, rows)};
}

struct NormArgs {
  GroupNorm norm;
  NormPlan plan;
};

// Blocks per multiprocessor that the registers must leave room for; more would spill.
template <class T> constexpr int kNormResident = sizeof(T) <= 4 ? 3 : 2;

// One thread's place in its block: column x of `columns`, in every `lanes`-th pixel.  All its channels are of one
// group: either the bundle's groups lie side by side, or a single group is wider than the block.
struct NormPlace {
  int first_group, n_groups, width;  // of the bundle, width in packs
  int columns, lanes, x, lane;
  int group;  // within the bundle
  bool active;

  __device__ __forceinline__ NormPlace(const NormArgs& p, int bundle) {
    first_group = bundle * p.plan.bundle;
    n_groups = int(smaller(p.plan.bundle, p.norm.groups - first_group));
    width = n_groups * p.plan.units;
    columns = int(smaller(width, kNormThreads));
    lanes = kNormThreads / columns;
    x = int(threadIdx.x) % columns;
    lane = int(threadIdx.x) / columns;
    group = n_groups > 1 ? x / p.plan.units : 0;
    active = lane < lanes;
  }
};

template <class T> struct NormTensors {
  using A = Acc<T>;
  const T* x;
  const T* grad;
  T* out;
  const A* weight;
  const A* bias;
  A* mean;
  A* rstd;

  __device__ NormTensors(const GroupNorm& a)
      : x(static_cast<const T*>(a.x)), grad(static_cast<const T*>(a.grad)), out(static_cast<T*>(a.out)),
        weight(static_cast<const A*>(a.weight)), bias(static_cast<const A*>(a.bias)),
        mean(static_cast<A*>(a.mean)), rstd(static_cast<A*>(a.rstd)) {}
};

// Affine part of one pack of channels.
template <int V, class A> struct NormAffine {
  A weight[V], bias[V], gain[V];

  __device__ NormAffine(const A* from_weight, const A* from_bias, A rstd) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      weight[j] = from_weight[j];
      bias[j] = from_bias[j];
      gain[j] = weight[j] * rstd;
    }
  }
};

// ---- totals over a block and over the parts ----------------------------------------------------------------------

struct Merge {
  __device__ Moments operator()(const Moments& a, const Moments& b) const { return merge(a, b); }
};

// The two sums of the backward pass.
struct NormSums { double level, tilt; };
ND_HD NormSums operator+(const NormSums& a, const NormSums& b) { return {a.level + b.level, a.tilt + b.tilt}; }

// Per-thread values to one per group, which its first column in lane 0 finds at values[threadIdx.x].
template <class S, class Join>
__device__ void total_over_block(S* values, const NormPlan& plan, const NormPlace& place, Join join) {
  const int thread = int(threadIdx.x), columns = int(smaller(plan.units, kNormThreads));
  tree_total(values, thread, place.active ? place.lane : place.lanes, place.lanes, place.columns, join);
  tree_total(values, thread, place.active && place.lane == 0 ? place.x % columns : columns, columns, 1, join);
}

// The partial results of the bundle's groups, read by read(index in workspace, part), to one per group in
// values[group].
template <class S, class Read, class Join>
__device__ __forceinline__ void total_over_parts(const NormArgs& p, const NormPlace& place, int64_t image, S* values,
                                                 Read read, Join join) {
  const int groups = place.n_groups, lanes = kNormThreads / groups;
  const int group = int(threadIdx.x) % groups, lane = int(threadIdx.x) / groups;
  S total = {};
  if (lane < lanes) {
    for (int64_t part = lane; part < p.plan.parts; part += lanes) {
      total = join(total, read((image * p.plan.parts + part) * p.norm.groups + place.first_group + group, part));
    }
  }
  values[threadIdx.x] = total;
  tree_total(values, int(threadIdx.x), lane, lanes, groups, join);
}

// ---- launchers ---------------------------------------------------------------------------------------------------

using NormKernel = void (*)(NormArgs);

struct NormPass {
  NormKernel partial, apply;
  size_t partial_shared, apply_shared;  // bytes
};

inline const char* launch_norm(const GroupNorm& a, int pack, const NormPass& pass, void* stream) {
  const NormArgs args = {a, norm_plan(a, pack)};
  const int64_t items = a.batch * args.plan.bundles;
  const Grid partial = {args.plan.parts, smaller(items, kMaxGridY), kNormThreads, pass.partial_shared, 1};
  const char* refused = launch(pass.partial, partial, stream, args);
  if (refused) return refused;
  const int64_t splits = smaller(larger(1, kNormBlocks / items), group_norm_chunks(a));
  const Grid apply = {splits, smaller(items, kMaxGridY), kNormThreads, pass.apply_shared, 1};
  return launch(pass.apply, apply, stream, args);
}

// Whether packs of four channels lie within a group, and every tensor can be read by them.
template <class T> bool norm_packs(const GroupNorm& a) {
  constexpr int bytes = pack_alignment<T, kNormPack>();
  return a.channels / a.groups % kNormPack == 0 && aligned(a.x, bytes) && aligned(a.out, bytes) &&
         (!a.grad || aligned(a.grad, bytes));
}

inline bool norm_empty(const GroupNorm& a) { return a.batch == 0 || a.pixels == 0 || a.channels == 0; }

inline const char* norm_refused(const GroupNorm& a) {
  if (a.channels <= INT32_MAX / 2) return nullptr;
  return "channels must be below 2^30, got more. Cut the tensor into parts.";
}

}  // namespace nd
