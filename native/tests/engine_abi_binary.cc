// What the C ABI refuses of models with 1-bit activations, and of binary weights.
#include <limits>

#include "tests/abi_models.h"

namespace bitpress {
namespace {

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

}  // namespace
}  // namespace bitpress
