// Vectors of the accumulator type as wide as this translation unit's instruction set, with loads and stores that
// convert.  Included once per instruction set (isa_*.cpp), in a namespace of its own.
#pragma once

// after the parameters of a lambda that must be part of its caller, and so of its instruction set
#define ND_LAMBDA __attribute__((always_inline))

namespace nd {
namespace ND_ISA {

template <class A> struct Simd;

template <> struct Simd<float> {
  static constexpr int kLanes = ND_VECTOR_BYTES / 4;
  typedef float V __attribute__((vector_size(ND_VECTOR_BYTES)));
  typedef int32_t I __attribute__((vector_size(ND_VECTOR_BYTES)));
  typedef uint32_t U __attribute__((vector_size(ND_VECTOR_BYTES)));
  typedef uint16_t H __attribute__((vector_size(ND_VECTOR_BYTES / 2)));
};

template <> struct Simd<double> {
  static constexpr int kLanes = ND_VECTOR_BYTES / 8;
  typedef double V __attribute__((vector_size(ND_VECTOR_BYTES)));
  typedef int64_t I __attribute__((vector_size(ND_VECTOR_BYTES)));
};

using VF = Simd<float>::V;
using VD = Simd<double>::V;

template <class To, class From> ND_HD To raw_load(const From* from) {
  To to;
  memcpy(&to, from, sizeof(to));
  return to;
}

ND_HD VF load(const float* p) { return raw_load<VF>(p); }
ND_HD VD load(const double* p) { return raw_load<VD>(p); }
using U32 = Simd<float>::U;
using U16 = Simd<float>::H;

ND_HD void store(float* p, VF v) { memcpy(p, &v, sizeof(v)); }
ND_HD void store(double* p, VD v) { memcpy(p, &v, sizeof(v)); }

// Past the caches, to an address that is a multiple of the vector's size: a large result that is stored like this is
// not read from memory first.  end_streams() before another thread reads it.
#if ND_VECTOR_BYTES == 32
ND_HD void stream(float* p, VF v) { _mm256_stream_ps(p, v); }
ND_HD void end_streams() { _mm_sfence(); }
#elif ND_VECTOR_BYTES == 64
ND_HD void stream(float* p, VF v) { _mm512_stream_ps(p, v); }
ND_HD void end_streams() { _mm_sfence(); }
#else
ND_HD void stream(float* p, VF v) { store(p, v); }
ND_HD void end_streams() {}
#endif

// 16 to 32 bits, and float16: GCC 12 does not find the processor's own conversions by itself.
#if ND_VECTOR_BYTES == 32
ND_HD U32 widen_bits(U16 bits) { return U32(_mm256_cvtepu16_epi32(__m128i(bits))); }
ND_HD U16 narrow_bits(U32 bits) {
  const __m256i packed = _mm256_packus_epi32(__m256i(bits), __m256i(bits));
  return U16(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8)));
}
ND_HD VF load(const half_t* p) { return VF(_mm256_cvtph_ps(raw_load<__m128i>(p))); }
ND_HD void store(half_t* p, VF v) {
  const __m128i bits = _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT);
  memcpy(p, &bits, sizeof(bits));
}
#elif ND_VECTOR_BYTES == 64
ND_HD U32 widen_bits(U16 bits) { return U32(_mm512_cvtepu16_epi32(__m256i(bits))); }
ND_HD U16 narrow_bits(U32 bits) { return U16(_mm512_cvtepi32_epi16(__m512i(bits))); }
ND_HD VF load(const half_t* p) { return VF(_mm512_cvtph_ps(raw_load<__m256i>(p))); }
ND_HD void store(half_t* p, VF v) {
  const __m256i bits = _mm512_cvtps_ph(__m512(v), _MM_FROUND_TO_NEAREST_INT);
  memcpy(p, &bits, sizeof(bits));
}
#else
ND_HD U32 widen_bits(U16 bits) { return __builtin_convertvector(bits, U32); }
ND_HD U16 narrow_bits(U32 bits) { return __builtin_convertvector(bits, U16); }
ND_HD VF load(const half_t* p) { return half_to_float<VF, U32>(widen_bits(raw_load<U16>(p))); }
ND_HD void store(half_t* p, VF v) {
  const auto bits = narrow_bits(float_to_half<U32, VF>(v));
  memcpy(p, &bits, sizeof(bits));
}
#endif

ND_HD VF load(const bfloat_t* p) { return bfloat_to_float<VF, U32>(widen_bits(raw_load<U16>(p))); }
ND_HD void store(bfloat_t* p, VF v) {
  const auto bits = narrow_bits(float_to_bfloat<U32, VF>(v));
  memcpy(p, &bits, sizeof(bits));
}

// The same for the last elements of a row: absent lanes are zero, and are not written.
template <class T> ND_HD auto load_part(const T* p, int64_t n) {
  T buffer[Simd<typename Accumulator<T>::type>::kLanes] = {};
  memcpy(buffer, p, size_t(n) * sizeof(T));
  return load(buffer);
}
template <class T, class V> ND_HD void store_part(T* p, V v, int64_t n) {
  T buffer[Simd<typename Accumulator<T>::type>::kLanes];
  store(buffer, v);
  memcpy(p, buffer, size_t(n) * sizeof(T));
}

template <class V> ND_HD double sum_lanes(V v) {
  double total = 0;
  for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); ++i) total += double(v[i]);
  return total;
}

// One step of the transposition: lanes with bit `s` set of row a and lanes with it clear of row b change places.  The
// masks must be constants: computed, they cost ten times the exchange.
template <class A, int s, class V, size_t... lane> ND_HD void exchange(V& a, V& b, std::index_sequence<lane...>) {
  using I = typename Simd<A>::I;
  constexpr int n = Simd<A>::kLanes;
  const V low = __builtin_shuffle(a, b, I{int((lane & s) ? n + lane - s : lane)...});
  b = __builtin_shuffle(a, b, I{int((lane & s) ? n + lane : lane + s)...});
  a = low;
}

// Square block of kLanes vectors, rows to columns, by exchanging off-diagonal halves at growing distance.
template <class A, int s = 1> ND_HD void transpose(typename Simd<A>::V* block) {
  constexpr int n = Simd<A>::kLanes;
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if (!(i & s)) exchange<A, s>(block[i], block[i + s], std::make_index_sequence<n>{});
  if constexpr (2 * s < n) transpose<A, 2 * s>(block);
}

// Scratch memory of one call; std::vector would put code of this instruction set into functions that others share.
template <class T> struct Scratch {
  T* data;
  explicit Scratch(int64_t n) : data(static_cast<T*>(::operator new(size_t(n > 0 ? n : 1) * sizeof(T)))) {}
  ~Scratch() { ::operator delete(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

ND_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace ND_ISA

// one instruction each; the second operand is what a NaN leaves
#if ND_VECTOR_BYTES == 32
template <> ND_HD ND_ISA::VF at_most(ND_ISA::VF x, float top) { return _mm256_min_ps(_mm256_set1_ps(top), x); }
template <> ND_HD ND_ISA::VF at_least(ND_ISA::VF x, float low) { return _mm256_max_ps(_mm256_set1_ps(low), x); }
#elif ND_VECTOR_BYTES == 64
template <> ND_HD ND_ISA::VF at_most(ND_ISA::VF x, float top) { return _mm512_min_ps(_mm512_set1_ps(top), x); }
template <> ND_HD ND_ISA::VF at_least(ND_ISA::VF x, float low) { return _mm512_max_ps(_mm512_set1_ps(low), x); }
#endif

template <> ND_HD ND_ISA::VF exponential<ND_ISA::VF>(ND_ISA::VF x) { return exp_float<ND_ISA::VF, ND_ISA::U32>(x); }
template <> ND_HD ND_ISA::VD exponential<ND_ISA::VD>(ND_ISA::VD x) {
  for (int i = 0; i < ND_ISA::Simd<double>::kLanes; ++i) x[i] = exp(x[i]);
  return x;
}

}  // namespace nd
