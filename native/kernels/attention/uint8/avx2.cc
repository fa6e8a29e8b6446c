// Products by `vpmaddwd`.
#include "kernels/attention/uint8/avx2_attend.h"

namespace bitpress::avx2 {

void AttentionUint8(const AttentionHead& head, const AttentionSpecs& specs, void* scratch) {
  Attend<PairWords<Avx2Tile>, F32x2>(head, specs, scratch);
}

}  // namespace bitpress::avx2
