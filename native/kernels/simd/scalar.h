// A vector of one float: what the reference kernels instantiate the shared polynomials with.
//
// Every operation has the semantics of the AVX2 one in avx2.h, including which operand a NaN or a tie selects, so that
// a formula written once over the vector type gives the same bits on both.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace bitpress::scalar {

struct I32 {
  uint32_t v;  // unsigned: wraps without undefined behaviour
};

struct F32 {
  float v;
  static F32 Broadcast(float x) { return {x}; }
};

inline F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
inline F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
inline F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
inline F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
// a * b + c, rounded once.
inline F32 Fma(F32 a, F32 b, F32 c) { return {std::fma(a.v, b.v, c.v)}; }
// Both return b where either is NaN or both are zero.
inline F32 Min(F32 a, F32 b) { return {a.v < b.v ? a.v : b.v}; }
inline F32 Max(F32 a, F32 b) { return {a.v > b.v ? a.v : b.v}; }
inline F32 Abs(F32 a) { return {std::fabs(a.v)}; }
inline F32 CopySign(F32 magnitude, F32 sign) { return {std::copysign(magnitude.v, sign.v)}; }
// a < b ? x : y per lane; false where either is NaN.
inline F32 SelectLess(F32 a, F32 b, F32 x, F32 y) { return a.v < b.v ? x : y; }

inline I32 AsInt(F32 a) {
  I32 i;
  std::memcpy(&i.v, &a.v, sizeof(float));
  return i;
}
inline F32 AsFloat(I32 a) {
  F32 f;
  std::memcpy(&f.v, &a.v, sizeof(float));
  return f;
}
inline I32 operator+(I32 a, I32 b) { return {a.v + b.v}; }
inline I32 operator-(I32 a, I32 b) { return {a.v - b.v}; }
// Arithmetic shift right by one; shift left by the 23 bits of a float's mantissa.
inline I32 Half(I32 a) { return {(a.v >> 1) | (a.v & 0x80000000u)}; }
inline I32 ToExponent(I32 a) { return {a.v << 23}; }

}  // namespace bitpress::scalar
