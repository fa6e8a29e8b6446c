// Arguments at the C ABI: each lie is refused with a status and a text that names it. What needs whole models and an
// oracle is in tests/runtime/test_engine_*.py.
#include <limits>
#include <map>
#include <thread>

#include "include/bitpress.h"
#include "tests/check.h"

namespace bitpress {
namespace {

bp_config TinyConfig() {
  bp_config c{};
  c.abi_version = BP_ABI_VERSION;
  c.vocab_size = 11;
  c.max_positions = 9;
  c.type_vocab_size = 2;
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

ModelPtr Create(const bp_config& config = TinyConfig()) {
  bp_model* model = nullptr;
  CHECK_MSG(bp_model_create(&config, &model) == BP_OK, std::string(bp_last_error()));
  return ModelPtr(model);
}

// Valid tensors on `codes`, to be changed into invalid ones: one scale 0.5, and one offset or 2^bits table entries.
bp_packed Ternary(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
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
bp_packed Uniform(const std::vector<uint8_t>& codes, size_t rows, size_t cols, uint32_t bits) {
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_UNIFORM;
  t.bits = bits;
  t.offset = t.scale;
  t.offset_count = 1;
  return t;
}
bp_packed Codebook(const std::vector<uint8_t>& codes, size_t rows, size_t cols, uint32_t bits) {
  static const int8_t table[16] = {-100, -50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100, 127};
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_CODEBOOK;
  t.bits = bits;
  t.table = table;
  t.table_count = size_t{1} << bits;
  return t;
}

bp_packed Binary(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
  bp_packed t = Ternary(codes, rows, cols);
  t.scheme = BP_BINARY;
  t.bits = 1;
  return t;
}

bp_packed TwoTerms(const std::vector<uint8_t>& codes, size_t rows, size_t cols) {
  static const float scales[2] = {0.5f, 0.25f};
  bp_packed t = Binary(codes, rows, cols);
  t.terms = 2;
  t.scale = scales;
  t.scale_count = 2;
  return t;
}

bp_config FloatConfig() {
  bp_config c = TinyConfig();
  c.activation_range = BP_FLOAT;
  c.activation_bits = 0;
  return c;
}

bp_config BinaryConfig() {
  bp_config c = TinyConfig();
  c.activation_range = BP_SIGNS;
  c.activation_bits = 0;
  return c;
}

bp_config ElasticConfig() {
  bp_config c = BinaryConfig();
  c.attention = BP_ATTEND_SOFTMAX;
  c.hidden_act = BP_ACT_RELU;
  return c;
}

size_t AttentionSize(const bp_config& c) { return size_t{c.num_heads} * c.head_size; }

// What BP_ATTEND_SOFTMAX adds, with its sizes.
std::map<std::string, size_t> ElasticNumbers(const bp_config& c) {
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
  add("pooler.dense", c.hidden_size);
  for (const char* state : {"query_states", "key_states", "value_states", "probabilities"}) {
    sizes["layers.0.attention." + std::string(state) + ".scale"] = 1;
  }
  return sizes;
}

// Rows of `bits` bits, all bytes the same but for zeros past the last bit.
std::vector<uint8_t> Rows(uint8_t byte, size_t rows, size_t bits) {
  const size_t row_bytes = (bits + 7) / 8;
  std::vector<uint8_t> codes(rows * row_bytes, byte);
  const uint8_t used = static_cast<uint8_t>(0xFF >> (row_bytes * 8 - bits));
  for (size_t row = 0; row < rows; ++row) codes[(row + 1) * row_bytes - 1] &= used;
  return codes;
}

// All matrices of linear layers ternary (codes 0, +1, -1 in turn), with BP_SIGNS binary, with BP_FLOAT small floats as
// the rest is; not finished. scale: of the matrices.
ModelPtr Filled(const bp_config& c, float scale = 0.5f) {
  ModelPtr model = Create(c);
  const size_t attention = AttentionSize(c);
  const std::map<std::string, std::pair<size_t, size_t>> floats = {
      {"embeddings.word.weight", {c.vocab_size, c.hidden_size}},
      {"embeddings.position.weight", {c.max_positions, c.hidden_size}},
      {"embeddings.token_type.weight", {c.type_vocab_size, c.hidden_size}},
      {"embeddings.norm.weight", {1, c.hidden_size}},
      {"embeddings.norm.bias", {1, c.hidden_size}},
      {"layers.0.attention.query.bias", {1, attention}},
      {"layers.0.attention.key.bias", {1, attention}},
      {"layers.0.attention.value.bias", {1, attention}},
      {"layers.0.attention.output.bias", {1, c.hidden_size}},
      {"layers.0.attention.norm.weight", {1, c.hidden_size}},
      {"layers.0.attention.norm.bias", {1, c.hidden_size}},
      {"layers.0.ffn.intermediate.bias", {1, c.intermediate_size}},
      {"layers.0.ffn.output.bias", {1, c.hidden_size}},
      {"layers.0.ffn.norm.weight", {1, c.hidden_size}},
      {"layers.0.ffn.norm.bias", {1, c.hidden_size}},
      {"pooler.dense.bias", {1, c.hidden_size}},
      {"classifier.weight", {c.num_labels, c.hidden_size}},
      {"classifier.bias", {1, c.num_labels}}};
  for (const auto& [name, shape] : floats) {
    std::vector<float> data(shape.first * shape.second);
    for (size_t i = 0; i < data.size(); ++i) data[i] = 0.1f * static_cast<float>(i % 13) - 0.5f;
    CHECK_MSG(bp_model_set_float(model.get(), name.c_str(), data.data(), shape.first, shape.second) == BP_OK, name);
  }
  const std::map<std::string, std::pair<size_t, size_t>> matrices = {
      {"layers.0.attention.query.weight", {attention, c.hidden_size}},
      {"layers.0.attention.key.weight", {attention, c.hidden_size}},
      {"layers.0.attention.value.weight", {attention, c.hidden_size}},
      {"layers.0.attention.output.weight", {c.hidden_size, attention}},
      {"layers.0.ffn.intermediate.weight", {c.intermediate_size, c.hidden_size}},
      {"layers.0.ffn.output.weight", {c.hidden_size, c.intermediate_size}},
      {"pooler.dense.weight", {c.hidden_size, c.hidden_size}}};
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

ModelPtr Finished(const bp_config& c = TinyConfig()) {
  ModelPtr model = Filled(c);
  CHECK_MSG(bp_model_finish(model.get()) == BP_OK, std::string(bp_last_error()));
  return model;
}

TEST(Version) { CHECK(bp_abi_version() == BP_ABI_VERSION); }

TEST(IsaIsAvailable) {
  const char* isa = bp_isa();
  CHECK(isa != nullptr);
  CHECK(isa && std::strstr(bp_available_isas(), isa) != nullptr);
  CHECK(std::strstr(bp_available_isas(), "reference") != nullptr);
}

TEST(CreateRefusesOtherVersionsAndNull) {
  bp_config config = TinyConfig();
  bp_model* model = nullptr;
  config.abi_version = 7;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "abi_version is 7, this library has 5");
  CHECK(model == nullptr);
  CHECK_REFUSED(bp_model_create(nullptr, &model), BP_INVALID_ARGUMENT, "config is NULL");
  config = TinyConfig();
  CHECK_REFUSED(bp_model_create(&config, nullptr), BP_INVALID_ARGUMENT, "model is NULL");
}

TEST(CreateRefusesEverySizeOfZero) {
  uint32_t bp_config::* const fields[] = {
      &bp_config::vocab_size,  &bp_config::max_positions,     &bp_config::type_vocab_size,
      &bp_config::hidden_size, &bp_config::num_layers,        &bp_config::num_heads,
      &bp_config::head_size,   &bp_config::intermediate_size, &bp_config::num_labels};
  for (const auto field : fields) {
    for (const uint32_t bad : {0u, std::numeric_limits<uint32_t>::max()}) {
      bp_config config = TinyConfig();
      config.*field = bad;
      bp_model* model = nullptr;
      CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "allowed are 1 to");
    }
  }
}

TEST(CreateRefusesUnknownEnums) {
  bp_model* model = nullptr;
  bp_config config = TinyConfig();
  config.head = 2;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "head is 2, allowed are 0 and 1");
  config.head = BP_HEAD_RELU;
  config.hidden_act = 4;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "hidden_act is 4, allowed are 0 to 3");
  config = TinyConfig();
  config.activation_range = 4;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "activation_range is 4, allowed are 0 to 3");
  const char* attention = "attention is 3, allowed are 0 to 2 with 1-bit activations and 0 with others";
  config = BinaryConfig();
  config.attention = 3;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, attention);
  config = TinyConfig();
  config.attention = BP_ATTEND_ALL;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "attention is 1, allowed are 0 to 2 with 1-bit");
  const char* with_codes = "allowed are 8 and 4 with uint8 codes and 0 with others";
  for (uint32_t bits : {0, 1, 3, 5, 16}) {
    config = TinyConfig();
    config.activation_bits = bits;
    CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, with_codes);
  }
  for (bp_config other : {FloatConfig(), BinaryConfig()}) {
    other.activation_bits = 8;
    CHECK_REFUSED(bp_model_create(&other, &model), BP_INVALID_ARGUMENT, with_codes);
  }
  config = TinyConfig();
  config.activation_symmetric = 2;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "activation_symmetric is 2");
}

TEST(LargestConfigAllocatesNothingInAdvance) {
  bp_config config = TinyConfig();
  config.vocab_size = 1u << 28;
  config.hidden_size = config.intermediate_size = 1u << 20;
  config.num_heads = 64;
  config.head_size = 1u << 14;
  config.num_layers = 1024;
  ModelPtr model = Create(config);
  CHECK_REFUSED(bp_model_finish(model.get()), BP_INCOMPLETE, "'embeddings.word.weight' (268435456 x 1048576)");
}

TEST(CreateRefusesHeadsThatAttentionCannotSum) {
  bp_config config = TinyConfig();
  config.num_heads = 1;
  config.head_size = 33025;
  bp_model* model = nullptr;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "head_size is 33025, allowed are 1 to 33024");
  config.num_heads = config.head_size = 1025;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT,
                "num_heads * head_size is 1050625, allowed are 1 to 1048576");
  config.num_heads = 1u << 20;  // a product beyond 32 bits
  config.head_size = 1u << 14;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "num_heads * head_size is 17179869184");
}

TEST(CreateRefusesWhatBinaryModelsDoNotHave) {
  bp_model* model = nullptr;
  const auto refused = [&](void (*change)(bp_config*), const char* text) {
    bp_config config = BinaryConfig();
    change(&config);
    CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, text);
  };
  refused([](bp_config* c) { c->max_positions = 32767; }, "max_positions is 32767, allowed are 1 to 32766");
  refused([](bp_config* c) { c->intermediate_size = 32767; }, "intermediate_size is 32767, allowed are 1 to 32766");
  refused([](bp_config* c) { c->hidden_size = 32768; }, "hidden_size is 32768, allowed are 1 to 32766");
  refused([](bp_config* c) { c->head_size = 257; }, "head_size is 257, allowed are 1 to 256");
  refused([](bp_config* c) { c->num_heads = 16384; }, "num_heads * head_size is 49152, allowed are 1 to 32766");
  refused([](bp_config* c) { c->hidden_act = BP_ACT_RELU; }, "hidden_act is relu");
  refused([](bp_config* c) { c->activation_symmetric = 1; }, "must be 0 with 1-bit ones");
  refused([](bp_config* c) { c->activation_clip = 2.5f; }, "must be 0 with 1-bit ones");
}

TEST(CreateRefusesTheOtherFormsFunction) {
  bp_model* model = nullptr;
  bp_config config = ElasticConfig();
  config.hidden_act = BP_ACT_GELU;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "hidden_act is not relu");
  config = BinaryConfig();
  config.attention = BP_ATTEND_ALL;
  config.hidden_act = BP_ACT_RELU;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "hidden_act is relu");
}

TEST(ElasticNumbersAreChecked) {
  const char *scale = "layers.0.attention.probabilities.scale", *shift = "layers.0.ffn.output.input.shift";
  ModelPtr model = Create(ElasticConfig());
  const auto refused = [&](const char* name, std::vector<float> data, const char* text) {
    CHECK_REFUSED(bp_model_set_float(model.get(), name, data.data(), 1, data.size()), BP_INVALID_ARGUMENT, text);
  };
  for (float bad : {0.0f, -1.0f, INFINITY, NAN, 4294968000.0f}) {
    refused(scale, {bad}, "must be above 0 and at most 2^32");
    refused("pooler.dense.input.scale", {bad}, "'pooler.dense.input.scale': it is");
  }
  refused(scale, {1.0f, 1.0f}, "the shape is 1 x 2, expected 1 x 1");
  refused(shift, {1, 1, 1, 1, 1, 1}, "the shape is 1 x 6, expected 1 x 7");
  refused(shift, {1, 1, 1, NAN, 1, 1, 1}, "value 3 is nan, must be finite");
  refused(shift, {1, 1, 1, 1, 1, 1, -INFINITY}, "value 6 is -inf, must be finite");
  model = Create(BinaryConfig());
  refused(scale, {1.0f}, "unknown name");
  model = Create(ElasticConfig());
  CHECK_REFUSED(bp_model_finish(model.get()), BP_INCOMPLETE, "is missing, and 42 more");
}

// Known only when both are there; the model stays as it is, so that finishing again finds the same.
TEST(ScalesOfWeightsAndInputsMayNotLeaveFp32Together) {
  ModelPtr model = Filled(ElasticConfig(), 0x1p113f);  // and inputs 2^-2
  CHECK_MSG(bp_model_finish(model.get()) == BP_OK, std::string(bp_last_error()));
  model = Filled(ElasticConfig(), 0x1.8p113f);
  for (int again = 0; again < 2; ++again) {
    CHECK_REFUSED(bp_model_finish(model.get()), BP_INVALID_ARGUMENT, "is above 2^111: dot products would leave fp32");
    CHECK_REFUSED(bp_model_finish(model.get()), BP_INVALID_ARGUMENT, "'layers.0.attention.query.weight': scale ");
  }
}

TEST(BinaryModelsTakeBinaryWeightsOfOneTermAndNoOthers) {
  const std::vector<uint8_t> codes(6 * 6, 0b00010101);  // rows of 6 signs or of 6 two-bit codes
  const std::vector<float> floats(6 * 6, 1.0f);
  const bp_packed binary = Binary(codes, 6, 6), ternary = Ternary(codes, 6, 6), two_terms = TwoTerms(codes, 6, 6);
  const char* pooler = "pooler.dense.weight";
  ModelPtr model = Create(BinaryConfig());
  CHECK_REFUSED(bp_model_set_packed(model.get(), pooler, &ternary), BP_INVALID_ARGUMENT,
                "'pooler.dense.weight': 1-bit activations need binary weights of one term");
  CHECK_REFUSED(bp_model_set_packed(model.get(), pooler, &two_terms), BP_INVALID_ARGUMENT, "weights of one term");
  CHECK_REFUSED(bp_model_set_float(model.get(), pooler, floats.data(), 6, 6), BP_INVALID_ARGUMENT,
                "'pooler.dense.weight': given as fp32, 1-bit activations need binary weights");
  CHECK_REFUSED(bp_model_set_range(model.get(), "pooler.input", 1.0f, 0.0f), BP_INVALID_ARGUMENT,
                "without static activation ranges");
  CHECK(bp_model_set_packed(model.get(), pooler, &binary) == BP_OK);
  for (const bp_packed& tensor : {binary, two_terms}) {
    model = Create();
    CHECK(bp_model_set_packed(model.get(), pooler, &tensor) == BP_OK);
    CHECK(bp_model_set_packed(model.get(), "layers.0.attention.key.weight", &tensor) == BP_OK);
  }
  model = Create(FloatConfig());
  CHECK_REFUSED(bp_model_set_packed(model.get(), pooler, &binary), BP_INVALID_ARGUMENT, "the model has fp32 ones");
}

TEST(BinaryTensorsAreChecked) {
  ModelPtr model = Create(BinaryConfig());
  std::vector<uint8_t> codes(11, 0b00010101);
  const char *pooler = "pooler.dense.weight", *word = "embeddings.word.weight";
  const auto refused = [&](const char* name, const bp_packed& tensor, const char* text) {
    CHECK_REFUSED(bp_model_set_packed(model.get(), name, &tensor), BP_INVALID_ARGUMENT, text);
  };
  bp_packed t = Binary(codes, 6, 6);
  t.bits = 2;
  refused(pooler, t, "bits is 2, allowed are 1 for binary codes");
  t = Binary(codes, 6, 6);
  t.packing = BP_PACK_TRITS;
  refused(pooler, t, "only ternary codes are packed as trits");
  t = Binary(codes, 6, 6);
  t.group_rows = 2;
  refused(pooler, t, "have one scale a matrix or a row");
  t = Binary(codes, 6, 6);
  t.group_rows = 1;
  refused(pooler, t, "it has 1 scales, expected 6");
  t = Binary(codes, 6, 6);
  t.offset = t.scale;
  t.offset_count = 1;
  refused(pooler, t, "only uniform codes have offsets");
  codes[4] = 0b01010101;  // a bit past the sixth
  refused(pooler, Binary(codes, 6, 6), "row 4 holds bytes that are no 1-bit codes, with zeros past the last");
  refused(word, Binary(codes, 11, 6), "row 4 holds bytes that are no 1-bit codes");
}

TEST(TermsAreChecked) {
  ModelPtr model = Create();
  std::vector<uint8_t> codes(2 * 11, 0b00010101);
  const char *pooler = "pooler.dense.weight", *word = "embeddings.word.weight";
  const auto refused = [&](const char* name, const bp_packed& tensor, const char* text) {
    CHECK_REFUSED(bp_model_set_packed(model.get(), name, &tensor), BP_INVALID_ARGUMENT, text);
  };
  for (uint32_t terms : {0, 3}) {
    bp_packed t = Binary(codes, 6, 6);
    t.terms = terms;
    refused(pooler, t, "allowed is 1, and 2 for binary codes");
    t = Ternary(codes, 6, 6);
    t.terms = terms;
    refused(pooler, t, "allowed is 1, and 2 for binary codes");
  }
  bp_packed t = Ternary(codes, 6, 6);
  t.terms = 2;
  refused(pooler, t, "terms is 2, allowed is 1, and 2 for binary codes");
  t = TwoTerms(codes, 6, 6);
  t.scale_count = 1;
  refused(pooler, t, "it has 1 scales, expected 2");
  t = TwoTerms(codes, 6, 6);
  t.group_rows = 1;
  refused(pooler, t, "it has 2 scales, expected 12");
  const float negative[2] = {1.0f, -1.0f};
  t = TwoTerms(codes, 6, 6);
  t.scale = negative;
  refused(pooler, t, "scale 1 is -1.0");
  // A bit past the sixth, in the second term of each.
  codes[6 + 4] = 0b01010101;
  refused(pooler, TwoTerms(codes, 6, 6), "row 4 holds bytes that are no 1-bit codes");
  codes[6 + 4] = 0b00010101;
  codes[11 + 3] = 0b01010101;
  refused(word, TwoTerms(codes, 11, 6), "row 3 holds bytes that are no 1-bit codes");
}

TEST(SettersRefuseNull) {
  ModelPtr model = Create();
  const float one = 1.0f;
  const std::vector<uint8_t> byte(1);
  bp_packed tensor = Ternary(byte, 1, 1);
  CHECK_REFUSED(bp_model_set_float(nullptr, "a", &one, 1, 1), BP_INVALID_ARGUMENT, "model is NULL");
  CHECK_REFUSED(bp_model_set_float(model.get(), nullptr, &one, 1, 1), BP_INVALID_ARGUMENT, "name is NULL");
  CHECK_REFUSED(bp_model_set_float(model.get(), "a", nullptr, 1, 1), BP_INVALID_ARGUMENT, "data is NULL");
  CHECK_REFUSED(bp_model_set_packed(model.get(), "a", nullptr), BP_INVALID_ARGUMENT, "tensor is NULL");
  tensor.codes = nullptr;
  CHECK_REFUSED(bp_model_set_packed(model.get(), "a", &tensor), BP_INVALID_ARGUMENT, "tensor->codes is NULL");
  tensor = Ternary(byte, 1, 1);
  tensor.scale = nullptr;
  CHECK_REFUSED(bp_model_set_packed(model.get(), "a", &tensor), BP_INVALID_ARGUMENT, "tensor->scale is NULL");
  CHECK_REFUSED(bp_model_set_range(model.get(), nullptr, 1, 0), BP_INVALID_ARGUMENT, "point is NULL");
  CHECK_REFUSED(bp_model_finish(nullptr), BP_INVALID_ARGUMENT, "model is NULL");
  bp_model_free(nullptr);
}

TEST(SettersRefuseDuplicates) {
  ModelPtr model = Create();
  const std::vector<float> data(6, 1.0f);
  const std::vector<uint8_t> codes(12, 0);
  CHECK(bp_model_set_float(model.get(), "embeddings.norm.bias", data.data(), 1, 6) == BP_OK);
  CHECK_REFUSED(bp_model_set_float(model.get(), "embeddings.norm.bias", data.data(), 1, 6), BP_INVALID_ARGUMENT,
                "'embeddings.norm.bias': given twice");
  const char* pooler = "pooler.dense.weight";
  const bp_packed tensor = Ternary(codes, 6, 6);
  CHECK(bp_model_set_packed(model.get(), pooler, &tensor) == BP_OK);
  CHECK_REFUSED(bp_model_set_packed(model.get(), pooler, &tensor), BP_INVALID_ARGUMENT,
                "'pooler.dense.weight': given twice");
}

TEST(RangesRefuseDuplicates) {
  bp_config config = TinyConfig();
  config.activation_range = BP_UINT8_STATIC;
  ModelPtr model = Create(config);
  CHECK(bp_model_set_range(model.get(), "pooler.input", 1.0f, -3.0f) == BP_OK);
  CHECK_REFUSED(bp_model_set_range(model.get(), "pooler.input", 1.0f, -3.0f), BP_INVALID_ARGUMENT, "given twice");
}

// Each tensor is the valid one with one field changed.
TEST(PackedTensorsAreChecked) {
  bp_config config = TinyConfig();
  config.intermediate_size = 70;  // for groups along the inputs
  ModelPtr model = Create(config);
  const std::vector<uint8_t> codes(70 * 70, 0x55);  // 2 bits: 1, 1, ...
  const char *pooler = "pooler.dense.weight", *down = "layers.0.ffn.output.weight";
  const auto refused = [&](const char* name, const bp_packed& tensor, const char* text) {
    CHECK_REFUSED(bp_model_set_packed(model.get(), name, &tensor), BP_INVALID_ARGUMENT, text);
  };
  const std::vector<float> numbers(70, 1.0f), infinite(6, INFINITY), negative(1, -1.0f);
  bp_packed t = Ternary(codes, 6, 6);
  t.scheme = 4;
  refused(pooler, t, "scheme is 4, allowed are 0 (ternary), 1 (uniform), 2 (codebook) and 3 (binary)");
  t = Ternary(codes, 6, 6);
  t.packing = 2;
  refused(pooler, t, "packing is 2, allowed are 0 (bits) and 1 (trits)");
  t = Ternary(codes, 6, 6);
  t.bits = 3;
  refused(pooler, t, "bits is 3, allowed are 2 for ternary codes");
  for (uint32_t bits : {0, 1, 5, 7, 9})
    refused(pooler, Uniform(codes, 6, 6, bits), "allowed are 2, 3, 4 and 8 for uniform codes");
  t = Codebook(codes, 6, 6, 4);
  t.bits = 8;
  refused(pooler, t, "bits is 8, allowed are 2, 3 and 4 for codebook codes");
  t = Uniform(codes, 6, 6, 2);
  t.packing = BP_PACK_TRITS;
  refused(pooler, t, "only ternary codes are packed as trits");
  t = Ternary(codes, 6, 6);
  t.offset = t.scale;
  t.offset_count = 1;
  refused(pooler, t, "only uniform codes have offsets");
  t = Ternary(codes, 6, 6);
  t.group_rows = 2;
  refused(pooler, t, "ternary, codebook and binary weights have one scale a matrix or a row");
  t = Ternary(codes, 6, 6);
  t.group_rows = 7;
  refused(pooler, t, "groups of 7 rows x 6 columns, allowed are whole rows, or one row and a multiple of 32 columns");
  t = Uniform(codes, 6, 70, 2);
  t.group_cols = 32;
  refused(down, t, "groups of 6 rows x 32 columns");
  t.group_rows = 1;
  t.group_cols = 33;
  refused(down, t, "groups of 1 rows x 33 columns");
  t.group_cols = 96;
  refused(down, t, "groups of 1 rows x 96 columns");
  t.group_cols = 64;
  refused(down, t, "it has 1 scales, expected 12");
  t.scale = numbers.data();
  t.scale_count = 12;
  refused(down, t, "it has 1 offsets, expected 12");
  t = Uniform(codes, 6, 6, 2);
  t.group_rows = 4;
  refused(pooler, t, "it has 1 scales, expected 2");
  t = Codebook(codes, 6, 6, 4);
  t.table_count = 15;
  refused(pooler, t, "it has 15 table entries, expected 16");
  t.table = nullptr;
  refused(pooler, t, "it has 0 table entries, expected 16");
  t = Uniform(codes, 6, 6, 2);
  t.scale = negative.data();
  refused(pooler, t, "scale 0 is -1.0");
  t = Uniform(codes, 6, 6, 2);
  t.offset = infinite.data();
  refused(pooler, t, "offset 0 is inf");

  const char* word = "embeddings.word.weight";
  refused(word, Codebook(codes, 11, 6, 2), "the word embedding takes ternary, uniform and binary codes");
  refused("embeddings.position.weight", Uniform(codes, 9, 6, 8), "given packed, must be fp32");

  // The codes: 2-bit ternary 10; symmetric code 0; bits above the last code.
  std::vector<uint8_t> bad(70 * 70, 0x55);
  for (size_t row = 0; row < 6; ++row) bad[2 * row + 1] = 5;  // two codes in the second byte of a row
  bad[2 * 3] = 0x56;
  refused(pooler, Ternary(bad, 6, 6), "row 3 holds bytes that are no 2-bit ternary codes");
  t = Uniform(bad, 6, 6, 2);
  t.offset = nullptr;
  t.offset_count = 0;
  bad[2 * 3] = 0x51;
  refused(pooler, t, "row 3 holds bytes that are no 2-bit symmetric codes");
  refused(word, Uniform(codes, 11, 6, 2), "row 0 holds bytes that are no 2-bit codes");
  refused(pooler, Codebook(codes, 6, 6, 2), "row 0 holds bytes that are no 2-bit codes");
}

TEST(PackedWeightsHaveAMostColumns) {
  bp_config config = TinyConfig();
  config.intermediate_size = 65537;
  ModelPtr model = Create(config);
  const std::vector<uint8_t> codes(6 * 65537);
  const bp_packed tensor = Uniform(codes, 6, 65537, 8);
  CHECK_REFUSED(bp_model_set_packed(model.get(), "layers.0.ffn.output.weight", &tensor), BP_INVALID_ARGUMENT,
                "packed weights of 65537 columns, allowed are 1 to 65536");
}

TEST(PanelsOfAModel) {
  ModelPtr model = Finished();
  size_t panels = 9, fast = 9;
  CHECK(bp_model_panels(model.get(), "pooler.dense.weight", &panels, &fast) == BP_OK && panels == 1 && fast == 1);
  CHECK_REFUSED(bp_model_panels(model.get(), "pooler.dense", &panels, &fast), BP_INVALID_ARGUMENT,
                "'pooler.dense': unknown name of a linear weight");
  CHECK_REFUSED(bp_model_panels(nullptr, "pooler.dense.weight", &panels, &fast), BP_INVALID_ARGUMENT, "model is NULL");
  CHECK_REFUSED(bp_model_panels(Create().get(), "pooler.dense.weight", &panels, &fast), BP_INVALID_ARGUMENT,
                "not finished");
}

TEST(ForwardNeedsAFinishedModel) {
  const int32_t id = 0;
  const uint32_t length = 1;
  float logits[2];
  ModelPtr model = Create();
  CHECK_REFUSED(bp_forward(model.get(), &id, nullptr, &length, 1, logits, nullptr, 1), BP_INVALID_ARGUMENT,
                "not finished");
  CHECK_REFUSED(bp_forward(nullptr, &id, nullptr, &length, 1, logits, nullptr, 1), BP_INVALID_ARGUMENT,
                "model is NULL");
}

TEST(ProfileGivesTheSameLogitsAndAllOfTheTime) {
  ModelPtr model = Finished();
  const int32_t ids[] = {1, 10, 3};
  const uint32_t lengths[] = {2, 1};
  float plain[4], profiled[4];
  uint64_t nanoseconds[BP_OPERATIONS];
  CHECK(bp_forward(model.get(), ids, nullptr, lengths, 2, plain, nullptr, 1) == BP_OK);
  CHECK(bp_profile(model.get(), ids, nullptr, lengths, 2, profiled, 1, nanoseconds) == BP_OK);
  CHECK(std::memcmp(plain, profiled, sizeof(plain)) == 0);
  for (int operation = 0; operation < BP_OP_WAITING; ++operation) CHECK(nanoseconds[operation] > 0);
  CHECK_REFUSED(bp_profile(model.get(), ids, nullptr, lengths, 2, profiled, 1, nullptr), BP_INVALID_ARGUMENT,
                "nanoseconds is NULL");
}

TEST(FunctionsAlone) {
  float x[] = {0.0f, 1.0f};
  CHECK(bp_apply(BP_FN_EXP, x, 2) == BP_OK);
  CHECK(x[0] == 1.0f && std::fabs(x[1] - 2.7182818f) < 1e-6f);
  CHECK_REFUSED(bp_apply(6, x, 2), BP_INVALID_ARGUMENT, "function is 6, allowed are 0 to 5");
  CHECK_REFUSED(bp_apply(BP_FN_EXP, nullptr, 2), BP_INVALID_ARGUMENT, "x is NULL");
  CHECK(bp_apply(BP_FN_EXP, nullptr, 0) == BP_OK);
}

TEST(AFinishedModelCannotBeChanged) {
  ModelPtr model = Finished();
  const float one[6] = {};
  CHECK_REFUSED(bp_model_set_float(model.get(), "embeddings.norm.bias", one, 1, 6), BP_INVALID_ARGUMENT, "is finished");
  CHECK_REFUSED(bp_model_finish(model.get()), BP_INVALID_ARGUMENT, "is finished");
}

TEST(ForwardChecksTheBatch) {
  ModelPtr model = Finished();
  const int32_t ids[] = {1, 10, 11}, negative[] = {-1}, types[] = {0, 2, 0};
  float logits[4];
  uint32_t length = 2;
  const auto forward = [&](const int32_t* the_ids, const int32_t* the_types) {
    return bp_forward(model.get(), the_ids, the_types, &length, 1, logits, nullptr, 1);
  };
  CHECK(forward(ids, nullptr) == BP_OK);
  CHECK_REFUSED(forward(ids, types), BP_INVALID_ARGUMENT, "token 1: type id is 2, allowed are 0 to 1");
  length = 3;
  CHECK_REFUSED(forward(ids, nullptr), BP_INVALID_ARGUMENT, "token 2: id is 11, allowed are 0 to 10");
  for (const uint32_t bad : {0u, 10u, std::numeric_limits<uint32_t>::max()}) {
    length = bad;  // found before any id is read
    CHECK_REFUSED(forward(ids, nullptr), BP_INVALID_ARGUMENT, "tokens, allowed are 1 to 9");
  }
  length = 1;
  CHECK_REFUSED(forward(negative, nullptr), BP_INVALID_ARGUMENT, "id is -1");
  CHECK_REFUSED(forward(nullptr, nullptr), BP_INVALID_ARGUMENT, "ids is NULL");
  CHECK_REFUSED(bp_forward(model.get(), ids, nullptr, nullptr, 1, logits, nullptr, 1), BP_INVALID_ARGUMENT,
                "lengths is NULL");
  CHECK_REFUSED(bp_forward(model.get(), ids, nullptr, &length, 1, nullptr, nullptr, 1), BP_INVALID_ARGUMENT,
                "logits is NULL");
  CHECK(bp_forward(model.get(), nullptr, nullptr, nullptr, 0, nullptr, nullptr, 1) == BP_OK);
}

void CheckWrites(const bp_config& config) {
  ModelPtr model = Finished(config);
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 3};
  const std::vector<uint32_t> lengths = {9, 1, 2};
  // Exactly as large as documented, on the heap: AddressSanitizer sees a write beyond.
  std::vector<float> logits(3 * 2, NAN), same(3 * 2, NAN), hidden(2 * 12 * 6, NAN);
  const auto forward = [&](float* out, float* states, uint32_t threads) {
    return bp_forward(model.get(), ids.data(), nullptr, lengths.data(), 3, out, states, threads);
  };
  CHECK(forward(logits.data(), hidden.data(), 1) == BP_OK);
  for (const float x : logits) CHECK(std::isfinite(x));
  for (const float x : hidden) CHECK(std::isfinite(x));
  for (uint32_t threads : {0, 1, 2, 3, 8}) {
    CHECK(forward(same.data(), nullptr, threads) == BP_OK);
    CHECK(std::memcmp(logits.data(), same.data(), sizeof(float) * logits.size()) == 0);
  }
}

TEST(ForwardWritesWhatItSaysAndNothingElse) {
  CheckWrites(TinyConfig());
  bp_config four_bits = TinyConfig();
  four_bits.activation_bits = 4;
  CheckWrites(four_bits);
  CheckWrites(BinaryConfig());
  CheckWrites(ElasticConfig());
  bp_config all = BinaryConfig();
  all.attention = BP_ATTEND_ALL;
  CheckWrites(all);
}

// One column for each head, fewer than the hidden size; a head of 4 or 8 columns, and of 70 with bits in two panels.
TEST(ForwardWithAttentionOfAnotherWidth) {
  for (bp_config config : {FloatConfig(), TinyConfig(), BinaryConfig(), ElasticConfig()}) {
    for (const auto& [heads, head_size] : {std::pair(2, 1), {1, 4}, {2, 4}, {2, 8}, {1, 70}}) {
      config.num_heads = static_cast<uint32_t>(heads);
      config.head_size = static_cast<uint32_t>(head_size);
      CheckWrites(config);
    }
  }
}

TEST(AttentionOfAnotherWidthHasTensorsOfThatWidth) {
  bp_config config = TinyConfig();
  config.head_size = 5;
  ModelPtr model = Create(config);
  const std::vector<float> data(10 * 6);
  const auto set = [&](const char* name, size_t rows, size_t cols) {
    return bp_model_set_float(model.get(), name, data.data(), rows, cols);
  };
  CHECK_REFUSED(set("layers.0.attention.key.weight", 6, 10), BP_INVALID_ARGUMENT, "is 6 x 10, expected 10 x 6");
  CHECK_REFUSED(set("layers.0.attention.value.bias", 1, 6), BP_INVALID_ARGUMENT, "is 1 x 6, expected 1 x 10");
  CHECK_REFUSED(set("layers.0.attention.output.weight", 10, 6), BP_INVALID_ARGUMENT, "is 10 x 6, expected 6 x 10");
  CHECK(set("layers.0.attention.query.weight", 10, 6) == BP_OK && set("layers.0.attention.query.bias", 1, 10) == BP_OK);
  CHECK(set("layers.0.attention.output.weight", 6, 10) == BP_OK);
  CHECK(set("layers.0.attention.output.bias", 1, 6) == BP_OK);
}

TEST(ConcurrentCallsAgree) {
  ModelPtr model = Finished();
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 3};
  const std::vector<uint32_t> lengths = {9, 1, 2};
  float expected[6];
  CHECK(bp_forward(model.get(), ids.data(), nullptr, lengths.data(), 3, expected, nullptr, 1) == BP_OK);
  std::vector<std::thread> callers;
  for (uint32_t threads : {1, 2, 3, 4, 2, 2}) {
    callers.emplace_back([&, threads] {
      for (int round = 0; round < 50; ++round) {
        float logits[6];
        CHECK(bp_forward(model.get(), ids.data(), nullptr, lengths.data(), 3, logits, nullptr, threads) == BP_OK);
        CHECK(std::memcmp(logits, expected, sizeof(logits)) == 0);
      }
    });
  }
  for (auto& caller : callers) caller.join();
}

TEST(ErrorsBelongToTheirThread) {
  CHECK_REFUSED(bp_model_finish(nullptr), BP_INVALID_ARGUMENT, "model is NULL");
  std::thread([] { CHECK(std::string(bp_last_error()).empty()); }).join();
  CHECK(!std::string(bp_last_error()).empty());
}

TEST(QuantizeRowsChecksItsArguments) {
  const float x[2] = {0, 1};
  uint8_t codes[2];
  float scale, offset;
  CHECK(bp_quantize_rows(x, 1, 2, 8, 0, 0.0f, codes, &scale, &offset) == BP_OK);
  CHECK(codes[0] == 0 && codes[1] == 255 && offset == 0.0f && scale == 1.0f / 255);
  CHECK(bp_quantize_rows(x, 1, 2, 4, 1, 0.0f, codes, &scale, &offset) == BP_OK);
  CHECK(codes[0] == 8 && codes[1] == 15 && offset == -8.0f * scale && scale == 1.0f / 7);
  CHECK(bp_quantize_rows(nullptr, 0, 2, 8, 0, 0.0f, nullptr, nullptr, nullptr) == BP_OK);
  CHECK_REFUSED(bp_quantize_rows(nullptr, 1, 2, 8, 0, 0, codes, &scale, &offset), BP_INVALID_ARGUMENT, "x is NULL");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 2, 8, 0, 0, codes, nullptr, &offset), BP_INVALID_ARGUMENT, "scale is NULL");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 0, 8, 0, 0, codes, &scale, &offset), BP_INVALID_ARGUMENT, "cols is 0");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 2, 5, 0, 0, codes, &scale, &offset), BP_INVALID_ARGUMENT,
                "bits is 5, allowed are 8 and 4");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 2, 8, 0, NAN, codes, &scale, &offset), BP_INVALID_ARGUMENT, "clip is");
}

}  // namespace
}  // namespace bitpress
