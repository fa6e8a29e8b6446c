// The x86 ISAs. docs/isa.md says what each has of its own and what it was run on.
#include <cpuid.h>

#include "kernels/isa_tables.h"

namespace bitpress {
namespace {

constexpr Kernels kAvx2 = BITPRESS_ALL_KERNELS(avx2);

bool CpuHasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#ifdef BITPRESS_HAVE_AVXVNNI
constexpr Kernels AvxVnniKernels() {
  Kernels kernels = kAvx2;
  kernels.isa = "avxvnni";
  kernels.integer_linear = avxvnni::IntegerLinear;
  kernels.attention_uint8 = avxvnni::AttentionUint8;
  return kernels;
}
constexpr Kernels kAvxVnni = AvxVnniKernels();

bool CpuHasAvxVnni() {
  // Not every compiler has a name for it: CPUID leaf 7, subleaf 1, EAX bit 4. Its registers are those of AVX2, which
  // the operating system saves then.
  unsigned eax, ebx, ecx, edx;
  return CpuHasAvx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
#endif

#ifdef BITPRESS_HAVE_AVX512VNNI
constexpr Kernels Avx512VnniKernels() {
  Kernels kernels = kAvx2;
  kernels.isa = "avx512vnni";
  kernels.quantize_rows = avx512vnni::QuantizeRows;
  kernels.quantize_block = avx512vnni::QuantizeBlock;
  kernels.integer_linear = avx512vnni::IntegerLinear;
  kernels.float_linear = avx512vnni::FloatLinear;
  kernels.attention_uint8 = avx512vnni::AttentionUint8;
  kernels.attention_float = avx512vnni::AttentionFloat;
  kernels.layer_norm = avx512vnni::LayerNorm;
  kernels.activate = avx512vnni::Activate;
  kernels.multiply_adds = avx512vnni::MultiplyAdds;
  kernels.binary_linear_float = avx512vnni::BinaryLinearFloat;
  kernels.binary_linear_bits = avx512vnni::BinaryLinearBits;
  kernels.bit_attention = avx512vnni::BitAttention;
  kernels.bit_attention_bits = avx512vnni::BitAttentionBits;
  return kernels;
}
constexpr Kernels kAvx512Vnni = Avx512VnniKernels();

bool CpuHasAvx512Vnni() {
  return CpuHasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

#ifdef BITPRESS_HAVE_AVX512VPOPCNTDQ
constexpr Kernels Avx512VpopcntdqKernels() {
  Kernels kernels = kAvx512Vnni;
  kernels.isa = "avx512vpopcntdq";
  kernels.binary_layout = BinaryLayout::kWords;
  kernels.binary_linear_float = avx512vpopcntdq::BinaryLinearFloat;
  kernels.binary_linear_bits = avx512vpopcntdq::BinaryLinearBits;
  kernels.bit_attention = avx512vpopcntdq::BitAttention;
  kernels.bit_attention_bits = avx512vpopcntdq::BitAttentionBits;
  return kernels;
}
constexpr Kernels kAvx512Vpopcntdq = Avx512VpopcntdqKernels();

bool CpuHasAvx512Vpopcntdq() {
  return CpuHasAvx512Vnni() && __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bitalg");
}
#endif
#endif

// Emulated kernels (native/tests/emulation) hold AVX2 instructions alone.
#ifdef BITPRESS_EMULATE
constexpr bool kIsEmulated = true;
#else
constexpr bool kIsEmulated = false;
#endif

}  // namespace

void AddX86Kernels(std::vector<const Kernels*>* available) {
  if (!CpuHasAvx2()) return;
  // CPUs that have both multiply twice as many bytes an instruction with 512 bits, at as many instructions a cycle
  // (Xeons) or half (Zen 4). Cascade Lake lowers its clock by 15 to 25 % for them, later Xeons hardly.
#ifdef BITPRESS_HAVE_AVX512VPOPCNTDQ
  if (kIsEmulated || CpuHasAvx512Vpopcntdq()) available->push_back(&kAvx512Vpopcntdq);
#endif
#ifdef BITPRESS_HAVE_AVX512VNNI
  if (kIsEmulated || CpuHasAvx512Vnni()) available->push_back(&kAvx512Vnni);
#endif
#ifdef BITPRESS_HAVE_AVXVNNI
  if (kIsEmulated || CpuHasAvxVnni()) available->push_back(&kAvxVnni);
#endif
  available->push_back(&kAvx2);
}

}  // namespace bitpress
