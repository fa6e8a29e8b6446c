// Oracle: the standard library in double. The bounds are those that kernels/activation/polynomials.h states.
#include "kernels/activation/polynomials.h"

#include <limits>

#include "kernels/activation/activation.h"
#include "kernels/simd/scalar.h"
#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float FromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Every 1,021st float (a prime: all exponents, varied mantissas), denormals included, both signs, without inf and NaN.
std::vector<float> AllMagnitudes() {
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x7F800000u; bits += 1021) {
    x.push_back(FromBits(bits));
    x.push_back(-FromBits(bits));
  }
  return x;
}

// The spacing of floats at y.
double Ulp(double y) {
  int exponent;
  std::frexp(y, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

using scalar::F32;
double GeluDouble(double x) { return x <= -40 ? 0.0 : x * 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double GeluTanhDouble(double x) {
  const double u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
  return x <= -40 ? 0.0 : x / (1 + std::exp(-2 * u));
}
double SiluDouble(double x) { return x <= -800 ? 0.0 : x / (1 + std::exp(-x)); }

// Where the reduction to |r| <= ln 2 / 2 changes its n, which is where an error of 1 ulp could turn the order round,
// and at all magnitudes.
TEST(ExpNeverFalls) {
  std::vector<float> x = AllMagnitudes();
  for (int n = 0; n < 151; ++n) {
    float near = -(static_cast<float>(n) + 0.5f) * 0.69314718f;
    for (int i = 0; i < 32; ++i) near = std::nextafter(near, -kInfinity);
    for (int i = 0; i < 64; ++i) x.push_back(near = std::nextafter(near, 0.0f));
  }
  for (float low : x) {
    if (low >= 0) continue;
    CHECK_MSG(Exp(F32{low}).v <= Exp(F32{std::nextafter(low, 0.0f)}).v, std::to_string(low));
  }
}

TEST(ExpIsWithinItsBound) {
  double worst = 0;
  for (float x : AllMagnitudes()) {
    const double exact = std::exp(double{x});
    const float y = Exp(F32{x}).v;
    if (x <= 0) CHECK_MSG(y <= 1.0f, std::to_string(x));  // the codes of attention probabilities rely on it
    if (exact >= 3.4028235677973366e38) {                 // the largest float and half a step: rounds to inf
      CHECK_MSG(y == kInfinity, std::to_string(x));
      continue;
    }
    worst = std::max(worst, std::fabs(y - exact) / Ulp(exact));
  }
  std::printf("Exp: %.3f ulp\n", worst);
  CHECK(worst <= 1.0);
  CHECK(Exp(F32{0.0f}).v == 1.0f && Exp(F32{-0.0f}).v == 1.0f);
  CHECK(Exp(F32{kInfinity}).v == kInfinity && Bits(Exp(F32{-kInfinity}).v) == 0 && std::isnan(Exp(F32{kNaN}).v));
}

// Absolute error where x < 8, ulp beyond.
template <class F>
void CheckGate(const char* name, F f, double (*exact)(double), double absolute, double ulps) {
  double worst_absolute = 0, worst_ulps = 0;
  for (float x : AllMagnitudes()) {
    const double expected = exact(x), error = std::fabs(f(x) - expected);
    if (x < 8) {
      worst_absolute = std::max(worst_absolute, error);
    } else {
      worst_ulps = std::max(worst_ulps, error / Ulp(expected));
    }
  }
  std::printf("%s: %.3g absolute, %.3f ulp\n", name, worst_absolute, worst_ulps);
  CHECK(worst_absolute <= absolute);
  CHECK(worst_ulps <= ulps);
  CHECK(f(kInfinity) == kInfinity && std::fabs(f(-kInfinity)) < 5e-15f && std::isnan(f(kNaN)) && f(0.0f) == 0.0f);
}

TEST(GatesAreWithinTheirBounds) {
  CheckGate("Gelu", [](float x) { return Gelu(F32{x}).v; }, GeluDouble, 3e-7, 1);
  CheckGate("GeluTanh", [](float x) { return GeluTanh(F32{x}).v; }, GeluTanhDouble, 6e-7, 1);
  CheckGate("Silu", [](float x) { return Silu(F32{x}).v; }, SiluDouble, 7.5e-7, 2);
}

TEST(TanhIsWithinItsBound) {
  double worst = 0, relative = 0;
  for (float x : AllMagnitudes()) {
    const double exact = std::tanh(double{x}), error = std::fabs(Tanh(F32{x}).v - exact);
    worst = std::max(worst, error);
    if (std::fabs(x) > 1e-37f) relative = std::max(relative, error / std::fabs(exact));
  }
  std::printf("Tanh: %.3g absolute, %.3g relative\n", worst, relative);
  CHECK(worst <= 1e-7 && relative <= 2e-7);
  CHECK(Tanh(F32{kInfinity}).v == 1.0f && Tanh(F32{-kInfinity}).v == -1.0f && std::isnan(Tanh(F32{kNaN}).v));
  CHECK(Bits(Tanh(F32{-0.0f}).v) == Bits(-0.0f));
}

TEST(EveryIsaGivesTheSameBits) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    std::vector<float> x = AllMagnitudes();
    for (float special : {kInfinity, -kInfinity, kNaN, 0.0f, -0.0f}) x.push_back(special);
    const auto random = RandomFloats(10001, 3.0f);
    x.insert(x.end(), random.begin(), random.end());
    for (Activation kind :
         {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu, Activation::kSilu, Activation::kTanh}) {
      auto a = x, b = x;
      kernels.activate(kind, a.data(), a.size());
      reference.activate(kind, b.data(), b.size());
      CHECK_MSG(SameBits(a, b), std::to_string(static_cast<int>(kind)));
      for (size_t n = 0; n <= 17; ++n) {
        std::vector<float> short_a(x.end() - static_cast<long>(n), x.end()), short_b = short_a;
        kernels.activate(kind, short_a.data(), n);
        reference.activate(kind, short_b.data(), n);
        CHECK(SameBits(short_a, short_b));
      }
    }
  });
}

}  // namespace
}  // namespace bitpress::test
