// The x86 ISAs.
#include "kernels/isa_tables.h"

namespace bitpress {
namespace {

constexpr Kernels kAvx2 = BITPRESS_ALL_KERNELS(avx2);

bool CpuHasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

void AddX86Kernels(std::vector<const Kernels*>* available) {
  if (CpuHasAvx2()) available->push_back(&kAvx2);
}

}  // namespace bitpress
