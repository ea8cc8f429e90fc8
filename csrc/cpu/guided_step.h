// guided_step: strips of eight vectors stay in registers while the terms are added, each in its own type.
#pragma once

namespace nd {
namespace ND_ISA {

constexpr int64_t kStepChunk = 16384;

// Named members and no array: the compiler then keeps them in registers.
template <class A> struct Strip {
  typename Simd<A>::V a, b, c, d, e, f, g, h;
  static constexpr int64_t kLanes = Simd<A>::kLanes, kWidth = 8 * kLanes;
};

template <class A, class T> ND_HD void add_strip(Strip<A>& s, const T* p, A coefficient) {
  constexpr int64_t n = Strip<A>::kLanes;
  s.a = add_term(s.a, load(p), coefficient);
  s.b = add_term(s.b, load(p + n), coefficient);
  s.c = add_term(s.c, load(p + 2 * n), coefficient);
  s.d = add_term(s.d, load(p + 3 * n), coefficient);
  s.e = add_term(s.e, load(p + 4 * n), coefficient);
  s.f = add_term(s.f, load(p + 5 * n), coefficient);
  s.g = add_term(s.g, load(p + 6 * n), coefficient);
  s.h = add_term(s.h, load(p + 7 * n), coefficient);
}

template <class A, class T> ND_HD void store_strip(const Strip<A>& s, T* p) {
  constexpr int64_t n = Strip<A>::kLanes;
  store(p, s.a);
  store(p + n, s.b);
  store(p + 2 * n, s.c);
  store(p + 3 * n, s.d);
  store(p + 4 * n, s.e);
  store(p + 5 * n, s.f);
  store(p + 6 * n, s.g);
  store(p + 7 * n, s.h);
}

// Calls f with `p` as a pointer of its type; `typed` is a null pointer that says which accumulator is in use.
template <class F> ND_HD void with_type(const float*, const void* p, Type type, F f) {
  if (type == Type::f32)
    f(static_cast<const float*>(p));
  else if (type == Type::bf16)
    f(static_cast<const bfloat_t*>(p));
  else
    f(static_cast<const half_t*>(p));
}
template <class F> ND_HD void with_type(const double*, const void* p, Type, F f) { f(static_cast<const double*>(p)); }

template <class T> ND_HD T* writable(const T* p) { return const_cast<T*>(p); }

// coefficients of one image, in double
ND_HD const double* step_row(const GuidedStep& a, int64_t image) {
  if (a.table == nullptr) return a.coefficient;
  return a.table + (a.table_images == 1 ? 0 : image) * a.n_terms;
}

// Elements [at, at + kWidth) of all images taken as one row; -0 is the neutral element of addition, +0 is not.
template <class A> ND_HD void whole_strip(const GuidedStep& a, const A* row, int64_t at) {
  const typename Simd<A>::V zero = -typename Simd<A>::V{};
  Strip<A> strip = {zero, zero, zero, zero, zero, zero, zero, zero};
  for (int t = 0; t < a.n_terms; ++t)
    with_type(row, a.term[t], a.term_type[t], [&](auto p) ND_LAMBDA { add_strip(strip, p + at, row[t]); });
  with_type(row, a.out, a.out_type, [&](auto p) ND_LAMBDA { store_strip(strip, writable(p) + at); });
}

// At most kLanes elements, at the end of an image.
template <class A> ND_HD void part_strip(const GuidedStep& a, const A* row, int64_t at, int64_t n) {
  typename Simd<A>::V sum = -typename Simd<A>::V{};
  for (int t = 0; t < a.n_terms; ++t)
    with_type(row, a.term[t], a.term_type[t],
              [&](auto p) ND_LAMBDA { sum = add_term(sum, load_part(p + at, n), row[t]); });
  with_type(row, a.out, a.out_type, [&](auto p) ND_LAMBDA { store_part(writable(p) + at, sum, n); });
}

template <class A> void step_body(int64_t begin, int64_t end, void* context) {
  const GuidedStep& a = *static_cast<const GuidedStep*>(context);
  const int64_t chunks = (a.per_image + kStepChunk - 1) / kStepChunk;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / chunks, from = (unit % chunks) * kStepChunk;
    const int64_t n = smaller(kStepChunk, a.per_image - from), at = image * a.per_image + from;
    A row[kMaxTerms];
    for (int t = 0; t < a.n_terms; ++t) row[t] = A(step_row(a, image)[t]);
    int64_t i = 0;
    for (; i + Strip<A>::kWidth <= n; i += Strip<A>::kWidth) whole_strip(a, row, at + i);
    for (; i < n; i += Strip<A>::kLanes) part_strip(a, row, at + i, smaller(n - i, Strip<A>::kLanes));
  }
}

inline void guided_step(const GuidedStep& a, Parallel parallel) {
  const int64_t units = a.batch * ((a.per_image + kStepChunk - 1) / kStepChunk);
  Body body = a.out_type == Type::f64 ? step_body<double> : step_body<float>;
  parallel(units, 2, body, const_cast<GuidedStep*>(&a));
}

}  // namespace ND_ISA
}  // namespace nd
