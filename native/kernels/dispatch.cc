#include "kernels/dispatch.h"

#include <cstdlib>

#include "kernels/isa_tables.h"

namespace bitpress {
namespace {

constexpr Kernels kReference = BITPRESS_ALL_KERNELS(reference);

// Best first.
const std::vector<const Kernels*>& Available() {
  static const std::vector<const Kernels*> available = [] {
    std::vector<const Kernels*> found;
#ifdef BITPRESS_HAVE_X86
    AddX86Kernels(&found);
#endif
#ifdef BITPRESS_HAVE_ARM
    AddArmKernels(&found);
#endif
    found.push_back(&kReference);
    return found;
  }();
  return available;
}

}  // namespace

const Kernels* KernelsFor(const char* isa) {
  for (const Kernels* kernels : Available()) {
    if (std::string(isa) == kernels->isa) return kernels;
  }
  return nullptr;
}

const char* AvailableIsas() {
  static const std::string names = [] {
    std::string joined;
    for (const Kernels* kernels : Available()) joined += (joined.empty() ? "" : ",") + std::string(kernels->isa);
    return joined;
  }();
  return names.c_str();
}

const Kernels* ChosenKernels(std::string* error) {
  struct Choice {
    const Kernels* kernels;
    std::string error;
  };
  static const Choice choice = [] {
    const char* forced = std::getenv("BITPRESS_ISA");
    if (!forced || !*forced) return Choice{Available().front(), ""};
    if (const Kernels* kernels = KernelsFor(forced)) return Choice{kernels, ""};
    return Choice{nullptr, "BITPRESS_ISA is '" + std::string(forced) + "', but this build and CPU have: " +
                               AvailableIsas() + ". Set one of these, or unset it to use the best."};
  }();
  if (!choice.kernels && error) *error = choice.error;
  return choice.kernels;
}

}  // namespace bitpress
