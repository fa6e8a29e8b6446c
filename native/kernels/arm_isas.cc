// The AArch64 ISAs. docs/isa.md says what they were run on.
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels/isa_tables.h"

namespace bitpress {
namespace {

#ifdef BITPRESS_HAVE_NEON
// Advanced SIMD with the dot products of Armv8.2 (optional there, mandatory from Armv8.4 on). A CPU without them, a
// Cortex-A53, A57 or A72, has the reference kernels alone: their integer products would be kernels of their own.
constexpr Kernels kNeonDot = BITPRESS_ALL_KERNELS(neondot);

bool CpuHasNeonDot() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

}  // namespace

void AddArmKernels([[maybe_unused]] std::vector<const Kernels*>* available) {
#ifdef BITPRESS_HAVE_NEON
  if (CpuHasNeonDot()) available->push_back(&kNeonDot);
#endif
}

}  // namespace bitpress
