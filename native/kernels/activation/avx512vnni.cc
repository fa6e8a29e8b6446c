#include "kernels/activation/in_step.h"
#include "kernels/simd/avx2_pair.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {

void Activate(Activation kind, float* x, size_t n) { ActivateInStep<avx2::Pair<avx2::Pair<F32>>, F32>(kind, x, n); }

}  // namespace bitpress::avx512vnni
