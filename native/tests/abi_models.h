// Models and tensors for tests of the C ABI: small ones that are valid, to be changed into ones that are not.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "include/bitpress.h"
#include "tests/check.h"

namespace bitpress {

inline bp_config TinyConfig() {
  bp_config c{};
  c.abi_version = BP_ABI_VERSION;
  c.vocab_size = 11;
  c.max_positions = 9;
  c.type_vocab_size = 2;
  c.embedding_size = 6;
  c.hidden_size = 6;
  c.num_layers = 1;
  c.num_heads = 2;
  c.head_size = 3;
  c.intermediate_size = 7;
  c.num_labels = 2;
  c.activation_range = BP_UINT8_TOKEN;
  c.activation_bits = 8;
  c.layer_norm_eps = 1e-12f;
  return c;
}

#define CHECK_REFUSED(call, expected, text)                                                 \
  do {                                                                                      \
    const bp_status status = (call);                                                        \
    CHECK_MSG(status == (expected), "status " + std::to_string(status));                    \
    CHECK_MSG(std::strstr(bp_last_error(), text) != nullptr, std::string(bp_last_error())); \
  } while (0)

struct ModelDeleter {
  void operator()(bp_model* model) const { bp_model_free(model); }
};
using ModelPtr = std::unique_ptr<bp_model, ModelDeleter>;

inline ModelPtr Create(const bp_config& config = TinyConfig()) {
  bp_model* model = nullptr;
  CHECK_MSG(bp_model_create(&config, &model) == BP_OK, std::string(bp_last_error()));
  return ModelPtr(model);
}

// Valid tensors on `codes`, to be changed into invalid ones: one scale 0.5, and one offset or 2^bits table entries.
inline bp_packed Ternary(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
  static const float scale = 0.5f;
  bp_packed t{};
  t.scheme = BP_TERNARY;
  t.bits = 2;
  t.terms = 1;
  t.rows = rows;
  t.cols = cols;
  t.codes = codes.data();
  t.scale = &scale;
  t.scale_count = 1;
  return t;
}
inline bp_packed Uniform(const std::vector<uint8_t>& codes, size_t rows, size_t cols, uint32_t bits) {
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_UNIFORM;
  t.bits = bits;
  t.offset = t.scale;
  t.offset_count = 1;
  return t;
}
inline bp_packed Codebook(const std::vector<uint8_t>& codes, size_t rows, size_t cols, uint32_t bits) {
  static const int8_t table[16] = {-100, -50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100, 127};
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_CODEBOOK;
  t.bits = bits;
  t.table = table;
  t.table_count = size_t{1} << bits;
  return t;
}

inline bp_packed Binary(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_BINARY;
  t.bits = 1;
  return t;
}

inline bp_packed TwoTerms(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
  static const float scales[2] = {0.5f, 0.25f};
  bp_packed t = Binary(codes, rows, cols);
  t.terms = 2;
  t.scale = scales;
  t.scale_count = 2;
  return t;
}

inline bp_config FloatConfig() {
  bp_config c = TinyConfig();
  c.activation_range = BP_FLOAT;
  c.activation_bits = 0;
  return c;
}

inline bp_config BinaryConfig() {
  bp_config c = TinyConfig();
  c.activation_range = BP_SIGNS;
  c.activation_bits = 0;
  return c;
}

inline bp_config ElasticConfig() {
  bp_config c = BinaryConfig();
  c.attention = BP_ATTEND_SOFTMAX;
  c.hidden_act = BP_ACT_RELU;
  return c;
}

// The same with a classifier of tokens, which has no pooler.
inline bp_config OfTokens(bp_config c) {
  c.head = BP_HEAD_TOKENS;
  return c;
}

// The same without pooler and classifier.
inline bp_config OfVectors(bp_config c, bp_head head) {
  c.head = head;
  c.num_labels = c.hidden_size;
  return c;
}

inline size_t AttentionSize(const bp_config& c) { return size_t{c.num_heads} * c.head_size; }

// What BP_ATTEND_SOFTMAX adds, with its sizes.
inline std::map<std::string, size_t> ElasticNumbers(const bp_config& c) {
  std::map<std::string, size_t> sizes;
  const auto add = [&](const std::string& linear, size_t inputs) {
    sizes[linear + ".input.scale"] = 1;
    sizes[linear + ".input.shift"] = inputs;
  };
  for (const char* part :
       {"attention.query", "attention.key", "attention.value", "attention.output", "ffn.intermediate"}) {
    add("layers.0." + std::string(part), part == std::string("attention.output") ? AttentionSize(c) : c.hidden_size);
  }
  add("layers.0.ffn.output", c.intermediate_size);
  if (c.head < BP_HEAD_TOKENS) add("pooler.dense", c.hidden_size);
  for (const char* state : {"query_states", "key_states", "value_states", "probabilities"}) {
    sizes["layers.0.attention." + std::string(state) + ".scale"] = 1;
  }
  return sizes;
}

// Rows of `bits` bits, all bytes the same but for zeros past the last bit.
inline std::vector<uint8_t> Rows(uint8_t byte, size_t rows, size_t bits) {
  const size_t row_bytes = (bits + 7) / 8;
  std::vector<uint8_t> codes(rows * row_bytes, byte);
  const uint8_t used = static_cast<uint8_t>(0xFF >> (row_bytes * 8 - bits));
  for (size_t row = 0; row < rows; ++row) codes[(row + 1) * row_bytes - 1] &= used;
  return codes;
}

// All matrices of linear layers ternary (codes 0, +1, -1 in turn), with BP_SIGNS binary, with BP_FLOAT small floats as
// the rest is; not finished. scale: of the matrices.
inline ModelPtr Filled(const bp_config& c, float scale = 0.5f) {
  ModelPtr model = Create(c);
  const size_t attention = AttentionSize(c);
  std::map<std::string, std::pair<size_t, size_t>> floats = {
      {"embeddings.word.weight", {c.vocab_size, c.embedding_size}},
      {"embeddings.position.weight", {c.max_positions, c.embedding_size}},
      {"embeddings.token_type.weight", {c.type_vocab_size, c.embedding_size}},
      {"embeddings.norm.weight", {1, c.embedding_size}},
      {"embeddings.norm.bias", {1, c.embedding_size}},
      {"layers.0.attention.query.bias", {1, attention}},
      {"layers.0.attention.key.bias", {1, attention}},
      {"layers.0.attention.value.bias", {1, attention}},
      {"layers.0.attention.output.bias", {1, c.hidden_size}},
      {"layers.0.attention.norm.weight", {1, c.hidden_size}},
      {"layers.0.attention.norm.bias", {1, c.hidden_size}},
      {"layers.0.ffn.intermediate.bias", {1, c.intermediate_size}},
      {"layers.0.ffn.output.bias", {1, c.hidden_size}},
      {"layers.0.ffn.norm.weight", {1, c.hidden_size}},
      {"layers.0.ffn.norm.bias", {1, c.hidden_size}}};
  if (c.head <= BP_HEAD_TOKENS) {
    floats["classifier.weight"] = {c.num_labels, c.hidden_size};
    floats["classifier.bias"] = {1, c.num_labels};
  }
  const bool has_pooler = c.head < BP_HEAD_TOKENS;
  if (has_pooler) floats["pooler.dense.bias"] = {1, c.hidden_size};
  if (c.embedding_size != c.hidden_size) {
    floats["embeddings.projection.weight"] = {c.hidden_size, c.embedding_size};
    floats["embeddings.projection.bias"] = {1, c.hidden_size};
  }
  for (const auto& [name, shape] : floats) {
    std::vector<float> data(shape.first * shape.second);
    for (size_t i = 0; i < data.size(); ++i) data[i] = 0.1f * static_cast<float>(i % 13) - 0.5f;
    CHECK_MSG(bp_model_set_float(model.get(), name.c_str(), data.data(), shape.first, shape.second) == BP_OK, name);
  }
  std::map<std::string, std::pair<size_t, size_t>> matrices = {
      {"layers.0.attention.query.weight", {attention, c.hidden_size}},
      {"layers.0.attention.key.weight", {attention, c.hidden_size}},
      {"layers.0.attention.value.weight", {attention, c.hidden_size}},
      {"layers.0.attention.output.weight", {c.hidden_size, attention}},
      {"layers.0.ffn.intermediate.weight", {c.intermediate_size, c.hidden_size}},
      {"layers.0.ffn.output.weight", {c.hidden_size, c.intermediate_size}}};
  if (has_pooler) matrices["pooler.dense.weight"] = {c.hidden_size, c.hidden_size};
  for (const auto& [name, shape] : matrices) {
    const auto [rows, cols] = shape;
    if (c.activation_range == BP_FLOAT) {
      std::vector<float> data(rows * cols);
      for (size_t i = 0; i < data.size(); ++i) data[i] = scale * static_cast<float>(i % 7) - 1.0f;
      CHECK_MSG(bp_model_set_float(model.get(), name.c_str(), data.data(), rows, cols) == BP_OK, name);
      continue;
    }
    const bool binary = c.activation_range == BP_SIGNS;
    const std::vector<uint8_t> codes = Rows(0b00110100, rows, cols * (binary ? 1 : 2));
    bp_packed tensor = binary ? Binary(codes, rows, cols) : Ternary(codes, rows, cols);
    tensor.scale = &scale;
    CHECK_MSG(bp_model_set_packed(model.get(), name.c_str(), &tensor) == BP_OK, name + ": " + bp_last_error());
  }
  if (c.attention == BP_ATTEND_SOFTMAX) {
    for (const auto& [name, size] : ElasticNumbers(c)) {
      const std::vector<float> data(size, 0.25f);
      CHECK_MSG(bp_model_set_float(model.get(), name.c_str(), data.data(), 1, size) == BP_OK, name);
    }
  }
  return model;
}

inline ModelPtr Finished(const bp_config& c = TinyConfig()) {
  ModelPtr model = Filled(c);
  CHECK_MSG(bp_model_finish(model.get()) == BP_OK, std::string(bp_last_error()));
  return model;
}

}  // namespace bitpress
