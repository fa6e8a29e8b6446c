// Arguments at the C ABI: each lie is refused with a status and a text that names it. What needs whole models and an
// oracle is in tests/runtime/test_engine_*.py.
#include <limits>

#include "tests/abi_models.h"

namespace bitpress {
namespace {

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
  config.abi_version = 8;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "abi_version is 8, this library has 7");
  CHECK(model == nullptr);
  CHECK_REFUSED(bp_model_create(nullptr, &model), BP_INVALID_ARGUMENT, "config is NULL");
  config = TinyConfig();
  CHECK_REFUSED(bp_model_create(&config, nullptr), BP_INVALID_ARGUMENT, "model is NULL");
}

TEST(CreateRefusesEverySizeOfZero) {
  uint32_t bp_config::* const fields[] = {
      &bp_config::vocab_size, &bp_config::max_positions, &bp_config::type_vocab_size, &bp_config::hidden_size,
      &bp_config::num_layers, &bp_config::num_heads,     &bp_config::head_size,       &bp_config::intermediate_size,
      &bp_config::num_labels, &bp_config::embedding_size};
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
  config.head = 8;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "head is 8, allowed are 0 to 7");
  config.head = BP_HEAD_MEAN;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT,
                "num_labels is 2, must be hidden_size, 6, where there is no classifier");
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
  config.embedding_size = config.hidden_size = config.intermediate_size = 1u << 20;
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
  const std::vector<uint16_t> counts = {0, 2, 0, 0, 0, 0}, columns = {4, 4};
  t = Codebook(codes, 6, 6, 4);
  t.outlier_counts = counts.data();
  refused(pooler, t, "outliers need counts, columns and values, or none of them");
  t.outlier_columns = columns.data();
  t.outliers = numbers.data();
  t.outlier_count = 1;
  refused(pooler, t, "it has 1 outliers, expected 2");
  t.outlier_count = 2;
  refused(pooler, t, "outlier 1 is in column 4 of row 1, allowed are 5 to 5");
  t.outliers = infinite.data();
  refused(pooler, t, "outlier 0 is inf, must be finite");
  t.scheme = BP_TERNARY;
  t.bits = 2;
  t.table = nullptr;
  refused(pooler, t, "only codebook weights have outliers");
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
