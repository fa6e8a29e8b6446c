// Sentence embeddings: a sequence's last hidden states to one row.
#include <cstring>

#include "engine/pass.h"

namespace bitpress {
namespace {

// sum = row 0 + row 1 + …, column by column in this order, whatever the ISA: additions are not reordered.
void AddRows(const float* rows, size_t count, size_t cols, float* sum) {
  std::memcpy(sum, rows, cols * sizeof(float));
  for (size_t i = 1; i < count; ++i) {
    const float* row = rows + i * cols;
    for (size_t c = 0; c < cols; ++c) sum[c] += row[c];
  }
}

void LargestOfRows(const float* rows, size_t count, size_t cols, float* largest) {
  std::memcpy(largest, rows, cols * sizeof(float));
  for (size_t i = 1; i < count; ++i) {
    const float* row = rows + i * cols;
    for (size_t c = 0; c < cols; ++c) largest[c] = row[c] > largest[c] ? row[c] : largest[c];
  }
}

}  // namespace

void PoolRows(const Pass& pass, size_t begin, size_t end, float* vectors, Stopwatch& watch) {
  const size_t cols = pass.hidden_size();
  for (size_t s = begin; s < end; ++s) {
    const float* rows = pass.hidden + pass.starts[s] * cols;
    const size_t count = pass.group.lengths[s];
    float* vector = vectors + s * cols;
    switch (pass.model.config.head) {
      case BP_HEAD_MEAN:
        AddRows(rows, count, cols, vector);
        for (size_t c = 0; c < cols; ++c) vector[c] /= static_cast<float>(count);
        break;
      case BP_HEAD_MAX:
        LargestOfRows(rows, count, cols, vector);
        break;
      default:  // BP_HEAD_CLS
        std::memcpy(vector, pass.hidden + s * cols, cols * sizeof(float));
    }
  }
  watch.Lap(BP_OP_HEAD);
}

}  // namespace bitpress
