#include "kernels/dispatch.h"

#include <cstdlib>
#include <cstring>

namespace bitpress {
namespace {

constexpr Kernels kReference = {
    "reference",
    reference::QuantizeRows,
    reference::QuantizeBlock,
    reference::IntegerLinear,
    reference::FloatLinear,
    reference::AttentionUint8,
    reference::AttentionFloat,
    reference::LayerNorm,
    reference::Activate,
    reference::DecodeTwoBitRow,
    reference::DecodeTritsRow,
    reference::DecodeUniformRow,
    reference::DecodeBinaryRow,
    reference::AddRows,
    reference::MultiplyAdds,
    reference::BinaryLinearFloat,
    reference::BinaryLinearBits,
    reference::SignBits,
    reference::BitAttention,
    reference::BitAttentionBits,
};

#ifdef BITPRESS_HAVE_AVX2
constexpr Kernels kAvx2 = {
    "avx2",
    avx2::QuantizeRows,
    avx2::QuantizeBlock,
    avx2::IntegerLinear,
    avx2::FloatLinear,
    avx2::AttentionUint8,
    avx2::AttentionFloat,
    avx2::LayerNorm,
    avx2::Activate,
    avx2::DecodeTwoBitRow,
    avx2::DecodeTritsRow,
    avx2::DecodeUniformRow,
    avx2::DecodeBinaryRow,
    avx2::AddRows,
    avx2::MultiplyAdds,
    avx2::BinaryLinearFloat,
    avx2::BinaryLinearBits,
    avx2::SignBits,
    avx2::BitAttention,
    avx2::BitAttentionBits,
};
bool CpuHasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

}  // namespace

const Kernels* KernelsFor(const char* isa) {
#ifdef BITPRESS_HAVE_AVX2
  if (std::strcmp(isa, "avx2") == 0) return CpuHasAvx2() ? &kAvx2 : nullptr;
#endif
  return std::strcmp(isa, "reference") == 0 ? &kReference : nullptr;
}

const char* AvailableIsas() { return KernelsFor("avx2") ? "avx2,reference" : "reference"; }

const Kernels* ChosenKernels(std::string* error) {
  struct Choice {
    const Kernels* kernels;
    std::string error;
  };
  static const Choice choice = [] {
    const char* forced = std::getenv("BITPRESS_ISA");
    if (!forced || !*forced) return Choice{KernelsFor("avx2") ? KernelsFor("avx2") : &kReference, ""};
    if (const Kernels* kernels = KernelsFor(forced)) return Choice{kernels, ""};
    return Choice{nullptr, "BITPRESS_ISA is '" + std::string(forced) + "', but this build and CPU have: " +
                               AvailableIsas() + ". Set one of these, or unset it to use the best."};
  }();
  if (!choice.kernels && error) *error = choice.error;
  return choice.kernels;
}

}  // namespace bitpress
