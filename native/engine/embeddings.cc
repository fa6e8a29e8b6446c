#include <algorithm>

#include "engine/pass.h"

namespace bitpress {
namespace {

void DecodeWord(const Pass& pass, int32_t id, float* row) {
  const Embeddings& e = pass.model.embeddings;
  const size_t columns = pass.embedding_size(), word = static_cast<size_t>(id);
  if (e.word_packed.codes == nullptr) {
    std::memcpy(row, e.word.data() + word * columns, columns * sizeof(float));
    return;
  }
  const CodeFormat& format = e.word_packed.format;
  const uint8_t* codes = e.word_packed.codes + word * PackedRowBytes(format, columns);
  const size_t group_cols = e.word_packed.group_inputs, groups = (columns + group_cols - 1) / group_cols;
  size_t group = word / e.word_packed.group_rows * groups;
  if (format.scheme == CodeScheme::kBinary) {
    const float* scale = &e.word_scale[group];
    if (e.word_packed.terms == 1) {
      pass.kernels.decode_binary_row(codes, columns, *scale, row);
      return;
    }
    // What belongs to the second term follows all of the first.
    const uint8_t* second = codes + e.word_packed.outputs * PackedRowBytes(format, columns);
    pass.kernels.decode_two_terms_row({codes, second}, columns, {*scale, scale[e.word_scale.size() / 2]}, row);
    return;
  }
  if (format.scheme == CodeScheme::kTernary) {  // one scale a row, or for more rows
    const float scale = e.word_scale[group];
    (format.trits ? pass.kernels.decode_trits_row : pass.kernels.decode_two_bit_row)(codes, columns, scale, row);
    return;
  }
  if (format.scheme == CodeScheme::kCodebook) {  // one scale a row, or for more rows
    float values[16];
    for (size_t i = 0; i < 16; ++i) values[i] = static_cast<float>(e.word_table[i]) * e.word_scale[group];
    pass.kernels.decode_codebook_row(codes, columns, format.bits, values, row);
    if (e.word_outliers.empty()) return;
    for (size_t i = e.word_outlier_begin[word]; i < e.word_outlier_begin[word + 1]; ++i) {
      row[e.word_outlier_columns[i]] = e.word_outliers[i];
    }
    return;
  }
  const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
  for (size_t begin = 0; begin < columns; begin += group_cols, ++group) {
    const size_t cols = std::min(group_cols, columns - begin);
    const float offset = format.symmetric ? 0.0f : e.word_offset[group];
    // A group begins on a byte: it is a multiple of 32 codes.
    pass.kernels.decode_uniform_row(codes + begin * format.bits / 8, cols, format.bits, zero, e.word_scale[group],
                                    offset, row + begin);
  }
}

}  // namespace

void EmbedRows(const Pass& pass, size_t begin, size_t end, Stopwatch& watch) {
  const Embeddings& e = pass.model.embeddings;
  const size_t columns = pass.embedding_size();
  for (size_t i = begin; i < end; ++i) {
    float* row = pass.embedded + i * columns;
    const size_t type = pass.group.type_ids == nullptr ? 0 : static_cast<size_t>(pass.group.type_ids[i]);
    DecodeWord(pass, pass.group.ids[i], row);
    pass.kernels.add_rows(e.token_type.data() + type * columns, e.position.data() + pass.positions[i] * columns,
                          columns, row);
  }
  watch.Lap(BP_OP_EMBEDDING);
  float* rows = pass.embedded + begin * columns;
  pass.kernels.layer_norm(rows, nullptr, end - begin, columns, e.norm.weight.data(), e.norm.bias.data(),
                          pass.model.config.layer_norm_eps, rows);
  watch.Lap(BP_OP_LAYER_NORM);
}

}  // namespace bitpress
