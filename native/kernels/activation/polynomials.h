// exp, GELU, SiLU and tanh as polynomials, written once over the vector type V (simd/scalar.h, avx2.h, neon.h), so that
// every ISA computes the same operations in the same order and gives the same bits.
//
// Largest errors against double (native/tests/polynomials.cc sweeps all magnitudes and asserts them):
//   Exp       1 ulp where the result is normal, one denormal step below; inf above 88.73, 0 below -103.98
//   Gelu      3e-7 absolute for x <= 8 (half an ulp of 8 is 2.4e-7 of it), 1 ulp above
//   GeluTanh  6e-7, likewise      Silu  7.5e-7, and 2 ulp above      Tanh  1e-7 absolute, 2e-7 relative
// Exp never falls as x grows below 0 (all floats from -104.5 to 0 compared with their neighbours, once): bit attention
// relies on it. NaN gives NaN. At -inf the three gates give their limit 0 (Gelu: -5e-15), not the NaN of inf * 0.
//
// Coefficients: minimax fits (Lawson-weighted least squares on Chebyshev nodes), rounded to fp32.
#pragma once

namespace bitpress {

template <class V>
inline V Constant(float x) {
  return V::Broadcast(x);
}

// 1.5 * 2^23: adding it rounds |x| < 2^22 to the nearest integer, ties to even, and leaves that integer in the low bits
// of the sum. No conversion to int, which would be undefined for NaN.
constexpr float kRoundingShift = 12582912.0f;

// 2^n for an integer vector n in -126..127; any other n gives some float.
template <class V, class I>
inline V PowerOfTwo(I n) {
  return AsFloat(ToExponent(n) + AsInt(Constant<V>(1.0f)));
}

template <class V>
inline V Exp(V x) {
  const V shift = Constant<V>(kRoundingShift);
  // Beyond these the result is inf or 0 already. x stands second so that a NaN passes.
  x = Min(Constant<V>(89.0f), Max(Constant<V>(-104.5f), x));
  // x = n ln 2 + r, |r| <= ln 2 / 2. The high part of ln 2 has 9 bits, so n * high is exact.
  const V shifted = Fma(x, Constant<V>(1.44269502f), shift);
  const V n = shifted - shift;
  V r = Fma(n, Constant<V>(-0.693359375f), x);
  r = Fma(n, Constant<V>(2.12194440e-4f), r);
  // e^r = 1 + r + r^2 p(r); error of p 3e-9 relative to e^r.
  V p = Constant<V>(1.38144672e-3f);
  p = Fma(p, r, Constant<V>(8.36878084e-3f));
  p = Fma(p, r, Constant<V>(4.16683927e-2f));
  p = Fma(p, r, Constant<V>(1.66665196e-1f));
  p = Fma(p, r, Constant<V>(4.9999994e-1f));
  p = Fma(p, r * r, r) + Constant<V>(1.0f);
  // 2^n in two factors, as n in -151..128 does not fit one exponent; only the last product can round.
  const auto exponent = AsInt(shifted) - AsInt(shift);
  const auto half = Half(exponent);
  return p * PowerOfTwo<V>(half) * PowerOfTwo<V>(exponent - half);
}

// x P(X <= x), X normal: relu(x) - |x| h(|x|) with the tail h(t) = P(X > t) = 2^-q(t). One smooth q serves both signs
// and keeps the relative precision of the tail, where 1 + erf would cancel.
template <class V>
inline V Gelu(V x) {
  const V shift = Constant<V>(kRoundingShift);
  // Above 8 the tail term is < 5e-15: held there, it cannot underflow nor meet inf * 0.
  const V t = Min(Constant<V>(8.0f), Abs(x));
  // q(t) = -log2(erfc(t / sqrt 2) / 2), fitted for the error of (t + 0.1) h(t): 5e-8.
  V q = Constant<V>(3.63760250e-7f);
  q = Fma(q, t, Constant<V>(-6.59557873e-6f));
  q = Fma(q, t, Constant<V>(1.33166731e-5f));
  q = Fma(q, t, Constant<V>(6.03338995e-4f));
  q = Fma(q, t, Constant<V>(-7.75318732e-3f));
  q = Fma(q, t, Constant<V>(5.30510321e-2f));
  q = Fma(q, t, Constant<V>(4.58983213e-1f));
  q = Fma(q, t, Constant<V>(1.15114307f));
  q = Fma(q, t, Constant<V>(9.99998510e-1f));
  // 2^-q = 2^-n 2^r, q in 1..51, |r| <= 1/2; n - q is exact. 2^r = 1 + r p(r), error 9e-8.
  const V shifted = shift - q;
  const V r = (shift - shifted) - q;
  V p = Constant<V>(1.32645911e-3f);
  p = Fma(p, r, Constant<V>(9.67161916e-3f));
  p = Fma(p, r, Constant<V>(5.55073507e-2f));
  p = Fma(p, r, Constant<V>(2.40222409e-1f));
  p = Fma(p, r, Constant<V>(6.93147004e-1f));
  p = Fma(p, r, Constant<V>(1.0f));
  const V h = p * PowerOfTwo<V>(AsInt(shifted) - AsInt(shift));
  return Max(Constant<V>(0.0f), x) - t * h;
}

// x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3), which is x (1 + tanh u) / 2. The numerator is held above -20,
// where the quotient is -0 already, so that -inf gives it too.
template <class V>
inline V GeluTanh(V x) {
  const V cubic = Fma(x * x, Constant<V>(-2.0f * 0.79788456f * 0.044715f), Constant<V>(-2.0f * 0.79788456f));
  return Max(Constant<V>(-20.0f), x) / (Constant<V>(1.0f) + Exp(x * cubic));
}

// x / (1 + e^-x); below -100 the quotient is -0.
template <class V>
inline V Silu(V x) {
  return Max(Constant<V>(-100.0f), x) / (Constant<V>(1.0f) + Exp(Constant<V>(0.0f) - x));
}

template <class V>
inline V Tanh(V x) {
  const V t = Abs(x);
  // Below 0.625, where 1 - 2 / (e^2t + 1) would cancel: t + t^3 p(t^2), error 4e-9.
  const V square = t * t;
  V p = Constant<V>(-5.71704e-3f);
  p = Fma(p, square, Constant<V>(2.065059e-2f));
  p = Fma(p, square, Constant<V>(-5.37435e-2f));
  p = Fma(p, square, Constant<V>(1.3331491e-1f));
  p = Fma(p, square, Constant<V>(-3.3333284e-1f));
  const V small = Fma(t * square, p, t);
  const V large = Constant<V>(1.0f) - Constant<V>(2.0f) / (Exp(t + t) + Constant<V>(1.0f));
  return CopySign(SelectLess(t, Constant<V>(0.625f), small, large), x);
}

template <class V>
inline V Relu(V x) {
  return Max(Constant<V>(0.0f), x);
}

}  // namespace bitpress
