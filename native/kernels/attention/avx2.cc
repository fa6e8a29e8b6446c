#include "kernels/attention/avx2_attend.h"

namespace bitpress::avx2 {

void AttentionFloat(const AttentionHead& head, void* scratch) { Attend<Avx2Tile, F32x2>(head, scratch); }

}  // namespace bitpress::avx2
