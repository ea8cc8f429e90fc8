// The mathematics of every kernel, once, for both devices: element formulas, filter taps, index maps, coefficients
// and number formats.  Host code instantiates the templates with scalars and with GCC vector types, device code
// with scalars, so that a test of the CPU kernels is a test of what the CUDA kernels compute.
// No torch, no CUDA header, no state.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define ND_HD __host__ __device__ __forceinline__
#else
// always inlined: the CPU kernels are compiled once per instruction set, and a shared copy would belong to one of them
#define ND_HD inline __attribute__((always_inline))
#endif

namespace nd {

// ---- number formats ------------------------------------------------------------------------------------------

struct half_t {
  uint16_t bits;
};
struct bfloat_t {
  uint16_t bits;
};

template <class To, class From> ND_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// F is float and U uint32_t, or vectors of them with as many lanes.

template <class F, class U> ND_HD F bfloat_to_float(U bits) { return bit_cast<F>(U(bits << 16)); }

// Round to nearest even; every NaN becomes the quiet NaN 0x7fc0.
template <class U, class F> ND_HD U float_to_bfloat(F value) {
  const U u = bit_cast<U>(value);
  const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return value != value ? U(U{} + 0x7fc0u) : rounded;
}

// An exponent 112 too small is put right by a multiplication, which also normalises the subnormals.
template <class F, class U> ND_HD F half_to_float(U bits) {
  const U magnitude = (bits & 0x7fffu) << 13;
  U scaled = bit_cast<U>(F(bit_cast<F>(magnitude) * 0x1p112f));
  scaled = (bits & 0x7c00u) == 0x7c00u ? U(magnitude | 0x7f800000u) : scaled;
  return bit_cast<F>(U(scaled | ((bits & 0x8000u) << 16)));
}

// Round to nearest even; above 65519.99 infinity; a NaN stays a quiet NaN.
template <class U, class F> ND_HD U float_to_half(F value) {
  const U u = bit_cast<U>(value), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  // below 2^-14 the spacing is that of 0.5 in float32: the addition rounds
  const U small = bit_cast<U>(F(bit_cast<F>(magnitude) + 0.5f)) - 0x3f000000u;
  const U normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;  // 0xc8000000 is -(112 << 23)
  U out = magnitude < 0x38800000u ? small : normal;
  out = magnitude >= 0x477ff000u ? U(U{} + 0x7c00u) : out;
  out = magnitude > 0x7f800000u ? U(U{} + 0x7e00u) : out;
  return out | sign;
}

template <class T> struct Accumulator {
  using type = float;
};
template <> struct Accumulator<double> {
  using type = double;
};

ND_HD float widen(float value) { return value; }
ND_HD double widen(double value) { return value; }
ND_HD float widen(half_t value) { return half_to_float<float, uint32_t>(value.bits); }
ND_HD float widen(bfloat_t value) { return bfloat_to_float<float, uint32_t>(value.bits); }

template <class T, class A> ND_HD T narrow(A value);
template <> ND_HD float narrow<float, float>(float value) { return value; }
template <> ND_HD float narrow<float, double>(double value) { return float(value); }
template <> ND_HD double narrow<double, double>(double value) { return value; }
template <> ND_HD half_t narrow<half_t, float>(float value) {
  return {uint16_t(float_to_half<uint32_t, float>(value))};
}
template <> ND_HD bfloat_t narrow<bfloat_t, float>(float value) {
  return {uint16_t(float_to_bfloat<uint32_t, float>(value))};
}

// ---- limits: a NaN fails every comparison and stays a NaN; V{} + number is that number in every lane --------------

template <class V> ND_HD V at_most(V x, float top) {
  const V limit = V{} + top;
  return x > limit ? limit : x;
}
template <class V> ND_HD V at_least(V x, float bottom) {
  const V limit = V{} + bottom;
  return x < limit ? limit : x;
}

// ---- index map of a strided tensor ---------------------------------------------------------------------------

constexpr int kDims = 4;

// Extents and strides in elements, outermost first, padded with extents of 1 in front.
struct Strided {
  int64_t size[kDims];
  int64_t stride[kDims];
};

ND_HD int64_t element_offset(const Strided& tensor, int64_t linear) {
  int64_t offset = 0;
  for (int d = kDims - 1; d > 0; --d) {
    offset += (linear % tensor.size[d]) * tensor.stride[d];
    linear /= tensor.size[d];
  }
  return offset + linear * tensor.stride[0];
}

// ---- feature loss: L = sum_l w_l mean((f - g)^2), dL/df = 2 w_l (f - g) / n_l (method.md eq. 33) --------------

template <class V, class A> ND_HD V feature_gradient(V difference, A factor) { return difference * factor; }

// factor of the gradient, in double: 2 w / n, times the power of two that keeps half precision from underflow
ND_HD double feature_factor(double weight, int64_t numel, double grad_scale) {
  return 2.0 * weight / double(numel) * grad_scale;
}

// ---- guided step ---------------------------------------------------------------------------------------------

template <class V, class A> ND_HD V add_term(V sum, V term, A coefficient) { return sum + term * coefficient; }

// ---- image for the guide network: clamp((x + 1) / 2, 0, 1), antialiased bilinear, (x - mean) / std ------------
// (method.md eq. 31)

template <class V> ND_HD V unit_range(V pixel) { return at_most(at_least(V(pixel * 0.5f + 0.5f), 0.0f), 1.0f); }

// Derivative of unit_range: 0.5 inside and on the edges, as torch.clamp has it, 0 outside.
template <class V> ND_HD V unit_slope(V pixel) {
  const V unit = pixel * 0.5f + 0.5f, zero = V{}, one = V{} + 1.0f, half = V{} + 0.5f;
  const V above = unit < zero ? zero : half;
  return unit > one ? zero : above;
}

// One axis of the resize: a triangle as wide as the larger of one input and one output pixel, centred on the
// output pixel, cut off at the border and normalised (the antialiased bilinear filter of PyTorch and Pillow).
struct Axis {
  int64_t in, out;
  double scale, support;  // input pixels per output pixel; half width of the triangle in input pixels
};

ND_HD Axis make_axis(int64_t in, int64_t out) {
  const double scale = double(in) / double(out);
  return {in, out, scale, scale > 1.0 ? scale : 1.0};
}

ND_HD double tap_center(const Axis& axis, int64_t out) { return axis.scale * (double(out) + 0.5); }

// First input pixel under the filter of an output pixel, and one past the last.
ND_HD int64_t tap_begin(const Axis& axis, int64_t out) {
  const int64_t begin = int64_t(tap_center(axis, out) - axis.support + 0.5);  // towards zero, as PyTorch does
  return begin > 0 ? begin : 0;
}
ND_HD int64_t tap_end(const Axis& axis, int64_t out) {
  const int64_t end = int64_t(tap_center(axis, out) + axis.support + 0.5);
  return end < axis.in ? end : axis.in;
}

// Weight before normalisation.
ND_HD double tap_weight(const Axis& axis, int64_t out, int64_t in) {
  const double distance = fabs(double(in) + 0.5 - tap_center(axis, out)) / axis.support;
  return distance < 1.0 ? 1.0 - distance : 0.0;
}

ND_HD double tap_total(const Axis& axis, int64_t out) {
  double total = 0;
  for (int64_t in = tap_begin(axis, out); in < tap_end(axis, out); ++in) total += tap_weight(axis, out, in);
  return total;
}

// Output pixels whose filter can cover an input pixel, for the gather backward: [begin, end), a superset by at
// most two; tap_weight is zero, or the input lies outside [tap_begin, tap_end), where one does not.
ND_HD int64_t cover_begin(const Axis& axis, int64_t in) {
  const int64_t begin = int64_t(floor((double(in) + 0.5 - axis.support) / axis.scale - 0.5));
  return begin > 0 ? begin : 0;
}
ND_HD int64_t cover_end(const Axis& axis, int64_t in) {
  const int64_t end = int64_t(ceil((double(in) + 0.5 + axis.support) / axis.scale - 0.5)) + 1;
  return end < axis.out ? end : axis.out;
}
ND_HD bool covers(const Axis& axis, int64_t out, int64_t in) {
  return in >= tap_begin(axis, out) && in < tap_end(axis, out);
}

// ---- GroupNorm and SiLU --------------------------------------------------------------------------------------

// exp for float and vectors of float (U: uint32_t or a vector of it): 2^k times a polynomial on [-ln2/2, ln2/2]
// (the coefficients of Cephes' expf, public domain); 2 ulp; 0 below -87.3, a huge number above 88.3.
template <class F, class U> ND_HD F exp_float(F x) {
  const F bounded = at_least(at_most(x, 88.3f), -87.3f);
  const F turns = bounded * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits of the sum are the nearest integer k
  const F k = turns - 12582912.0f;
  const F r = (bounded - k * 0.693359375f) + k * 2.12194440e-4f;
  // pairs first (Estrin's scheme): half the chain of dependent steps of Horner's
  const F r2 = r * r;
  const F high = r * 1.9875691500e-4f + 1.3981999507e-3f, middle = r * 8.3334519073e-3f + 4.1665795894e-2f;
  const F low = r * 1.6666665459e-1f + 5.0000001201e-1f;
  const F p = ((high * r2 + middle) * r2 + low) * r2 + (r + 1.0f);
  return bit_cast<F>(U(bit_cast<U>(p) + (bit_cast<U>(turns) << 23)));
}

template <class V> ND_HD V exponential(V x);
template <> ND_HD float exponential<float>(float x) { return exp_float<float, uint32_t>(x); }
template <> ND_HD double exponential<double>(double x) { return exp(x); }

template <class V> ND_HD V sigmoid(V u) { return 1.0f / (exponential<V>(-u) + 1.0f); }

// u: the normalised and scaled value that enters SiLU
template <class V> ND_HD V silu(V u) { return u * sigmoid<V>(u); }

template <class V> ND_HD V silu_slope(V u) {
  const V s = sigmoid<V>(u);
  return s * (u * (1.0f - s) + 1.0f);
}

// Affine part of one channel: u = (x - mean) gain + bias with gain = weight / standard deviation.
template <class V> ND_HD V normalised(V x, V mean, V gain, V bias) { return (x - mean) * gain + bias; }

// dL/dx of one element; du = dL/du, and of the group: level = rstd mean(du w), tilt = rstd^2 mean(du w xhat).
template <class V> ND_HD V norm_gradient(V x, V du, V mean, V gain, V level, V tilt) {
  return du * gain - level - (x - mean) * tilt;
}

// Count, mean and sum of squared deviations of two samples taken together (Chan, Golub and LeVeque 1979).
struct Moments {
  double count, mean, m2;
};

ND_HD Moments merge(const Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  if (count == 0) return {0, 0, 0};
  const double delta = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

}  // namespace nd
