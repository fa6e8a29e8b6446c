#include "kernels/simd/avx512vnni.h"

#include "kernels/attention/avx2_attend.h"
#include "kernels/simd/avx512.h"

namespace bitpress::avx512vnni {

void AttentionFloat(const AttentionHead& head, void* scratch) { avx2::Attend<VnniTile, F32>(head, scratch); }

}  // namespace bitpress::avx512vnni
