// The choice is made once a process, so each case runs in a child of its own.
#include "kernels/dispatch.h"

#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

template <class F>
bool InChild(const char* isa, F f) {
  const pid_t child = fork();
  if (child == 0) {
    if (isa) {
      setenv("BITPRESS_ISA", isa, 1);
    } else {
      unsetenv("BITPRESS_ISA");
    }
    _exit(f() ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0;
}

bool Chosen(const char* isa) {
  std::string error;
  const Kernels* kernels = ChosenKernels(&error);
  return kernels && std::string(kernels->isa) == isa && error.empty() && ChosenKernels(nullptr) == kernels;
}

TEST(TheBestIsChosen) {
  const std::string names = AvailableIsas(), best = names.substr(0, names.find(','));
  CHECK(InChild(nullptr, [&] { return Chosen(best.c_str()); }));
  CHECK(InChild("", [&] { return Chosen(best.c_str()); }));
}

TEST(AnIsaCanBeForced) {
  CHECK(KernelsFor("reference"));
  ForEveryIsa([](const Kernels& kernels) { CHECK(InChild(kernels.isa, [&] { return Chosen(kernels.isa); })); });
}

TEST(AnUnknownIsaIsAnError) {
  CHECK(InChild("sse9", [] {
    std::string error;
    if (ChosenKernels(&error) || ChosenKernels(nullptr)) return false;
    return error.find("'sse9'") != std::string::npos && error.find(AvailableIsas()) != std::string::npos;
  }));
  CHECK(!KernelsFor("sse9"));
}

TEST(EveryAvailableIsaIsComplete) {
  ForEveryIsa([](const Kernels& kernels) {
    const Kernels* k = KernelsFor(kernels.isa);
    CHECK(k == &kernels && k->quantize_rows && k->quantize_block && k->integer_linear && k->float_linear &&
          k->attention_uint8 && k->attention_float && k->layer_norm && k->activate && k->decode_two_bit_row &&
          k->decode_trits_row && k->decode_uniform_row && k->add_rows && k->multiply_adds(3) > 0 &&
          k->binary_linear_float && k->binary_linear_bits && k->sign_bits && k->bit_attention && k->bit_attention_bits);
  });
}

}  // namespace
}  // namespace bitpress::test
