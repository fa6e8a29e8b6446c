#include "kernels/activation/in_step.h"
#include "kernels/simd/avx2_pair.h"

namespace bitpress::avx2 {

// [Eight in step: the formula's constants and intermediate values no longer fit the registers.]
void Activate(Activation kind, float* x, size_t n) { ActivateInStep<F32x4, F32>(kind, x, n); }

}  // namespace bitpress::avx2
