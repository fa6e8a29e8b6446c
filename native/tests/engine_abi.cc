// Arguments at the C ABI: each lie is refused with a status and a text that names it. What needs whole models and an
// oracle is in tests/runtime/test_engine_*.py.
#include <limits>
#include <map>
#include <thread>

#include "engine/packed_codes.h"
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
  c.intermediate_size = 7;
  c.num_labels = 2;
  c.activation_range = BP_UINT8_TOKEN;
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

// All matrices of linear layers ternary (codes 0, +1, -1 in turn), the rest small floats.
ModelPtr Finished() {
  ModelPtr model = Create();
  const bp_config c = TinyConfig();
  const std::map<std::string, std::pair<size_t, size_t>> floats = {
      {"embeddings.word.weight", {c.vocab_size, c.hidden_size}},
      {"embeddings.position.weight", {c.max_positions, c.hidden_size}},
      {"embeddings.token_type.weight", {c.type_vocab_size, c.hidden_size}},
      {"embeddings.norm.weight", {1, c.hidden_size}},
      {"embeddings.norm.bias", {1, c.hidden_size}},
      {"layers.0.attention.query.bias", {1, c.hidden_size}},
      {"layers.0.attention.key.bias", {1, c.hidden_size}},
      {"layers.0.attention.value.bias", {1, c.hidden_size}},
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
      {"layers.0.attention.query.weight", {c.hidden_size, c.hidden_size}},
      {"layers.0.attention.key.weight", {c.hidden_size, c.hidden_size}},
      {"layers.0.attention.value.weight", {c.hidden_size, c.hidden_size}},
      {"layers.0.attention.output.weight", {c.hidden_size, c.hidden_size}},
      {"layers.0.ffn.intermediate.weight", {c.intermediate_size, c.hidden_size}},
      {"layers.0.ffn.output.weight", {c.hidden_size, c.intermediate_size}},
      {"pooler.dense.weight", {c.hidden_size, c.hidden_size}}};
  const float scale = 0.5f;
  for (const auto& [name, shape] : matrices) {
    std::vector<uint8_t> codes(shape.first * 2, 0b00110100);  // two bytes a row of 6 or 7
    for (size_t row = 0; row < shape.first; ++row) codes[2 * row + 1] = 0b0100;
    CHECK_MSG(bp_model_set_ternary(model.get(), name.c_str(), codes.data(), shape.first, shape.second, BP_PACK_2BIT,
                                   &scale, 1) == BP_OK,
              name + ": " + bp_last_error());
  }
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
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "abi_version is 7, this library has 1");
  CHECK(model == nullptr);
  CHECK_REFUSED(bp_model_create(nullptr, &model), BP_INVALID_ARGUMENT, "config is NULL");
  config = TinyConfig();
  CHECK_REFUSED(bp_model_create(&config, nullptr), BP_INVALID_ARGUMENT, "model is NULL");
}

TEST(CreateRefusesEverySizeOfZero) {
  uint32_t bp_config::* const fields[] = {
      &bp_config::vocab_size, &bp_config::max_positions, &bp_config::type_vocab_size,   &bp_config::hidden_size,
      &bp_config::num_layers, &bp_config::num_heads,     &bp_config::intermediate_size, &bp_config::num_labels};
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
  config.hidden_act = 4;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "hidden_act is 4, allowed are 0 to 3");
  config = TinyConfig();
  config.activation_range = 3;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "activation_range is 3, allowed are 0 to 2");
  config = TinyConfig();
  config.activation_symmetric = 2;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT, "activation_symmetric is 2");
}

TEST(LargestConfigAllocatesNothingInAdvance) {
  bp_config config = TinyConfig();
  config.vocab_size = 1u << 28;
  config.hidden_size = config.intermediate_size = 1u << 20;
  config.num_heads = 64;
  config.num_layers = 1024;
  ModelPtr model = Create(config);
  CHECK_REFUSED(bp_model_finish(model.get()), BP_INCOMPLETE, "'embeddings.word.weight' (268435456 x 1048576)");
}

TEST(CreateRefusesHeadsThatAttentionCannotSum) {
  bp_config config = TinyConfig();
  config.num_heads = 1;
  config.hidden_size = 33025;
  bp_model* model = nullptr;
  CHECK_REFUSED(bp_model_create(&config, &model), BP_INVALID_ARGUMENT,
                "hidden_size / num_heads is 33025, allowed are 1 to 33024");
}

TEST(SettersRefuseNull) {
  ModelPtr model = Create();
  const float one = 1.0f;
  const uint8_t byte = 0;
  CHECK_REFUSED(bp_model_set_float(nullptr, "a", &one, 1, 1), BP_INVALID_ARGUMENT, "model is NULL");
  CHECK_REFUSED(bp_model_set_float(model.get(), nullptr, &one, 1, 1), BP_INVALID_ARGUMENT, "name is NULL");
  CHECK_REFUSED(bp_model_set_float(model.get(), "a", nullptr, 1, 1), BP_INVALID_ARGUMENT, "data is NULL");
  CHECK_REFUSED(bp_model_set_ternary(model.get(), "a", nullptr, 1, 1, BP_PACK_2BIT, &one, 1), BP_INVALID_ARGUMENT,
                "codes is NULL");
  CHECK_REFUSED(bp_model_set_ternary(model.get(), "a", &byte, 1, 1, BP_PACK_2BIT, nullptr, 1), BP_INVALID_ARGUMENT,
                "scale is NULL");
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
  CHECK(bp_model_set_ternary(model.get(), pooler, codes.data(), 6, 6, BP_PACK_TRITS, data.data(), 1) == BP_OK);
  CHECK_REFUSED(bp_model_set_ternary(model.get(), pooler, codes.data(), 6, 6, BP_PACK_TRITS, data.data(), 1),
                BP_INVALID_ARGUMENT, "'pooler.dense.weight': given twice");
}

TEST(RangesRefuseDuplicates) {
  bp_config config = TinyConfig();
  config.activation_range = BP_UINT8_STATIC;
  ModelPtr model = Create(config);
  CHECK(bp_model_set_range(model.get(), "pooler.input", 1.0f, -3.0f) == BP_OK);
  CHECK_REFUSED(bp_model_set_range(model.get(), "pooler.input", 1.0f, -3.0f), BP_INVALID_ARGUMENT, "given twice");
}

TEST(UnknownPackingIsRefused) {
  ModelPtr model = Create();
  const std::vector<uint8_t> codes(12, 0);
  const float scale = 1.0f;
  CHECK_REFUSED(bp_model_set_ternary(model.get(), "pooler.dense.weight", codes.data(), 6, 6, 2, &scale, 1),
                BP_INVALID_ARGUMENT, "packing is 2, allowed are 0 (2 bits) and 1 (trits)");
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

TEST(ForwardWritesWhatItSaysAndNothingElse) {
  ModelPtr model = Finished();
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
  CHECK(bp_quantize_rows(x, 1, 2, 0, 0.0f, codes, &scale, &offset) == BP_OK);
  CHECK(codes[0] == 0 && codes[1] == 255 && offset == 0.0f && scale == 1.0f / 255);
  CHECK(bp_quantize_rows(nullptr, 0, 2, 0, 0.0f, nullptr, nullptr, nullptr) == BP_OK);
  CHECK_REFUSED(bp_quantize_rows(nullptr, 1, 2, 0, 0, codes, &scale, &offset), BP_INVALID_ARGUMENT, "x is NULL");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 2, 0, 0, codes, nullptr, &offset), BP_INVALID_ARGUMENT, "scale is NULL");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 0, 0, 0, codes, &scale, &offset), BP_INVALID_ARGUMENT, "cols is 0");
  CHECK_REFUSED(bp_quantize_rows(x, 1, 2, 0, NAN, codes, &scale, &offset), BP_INVALID_ARGUMENT, "clip is");
}

// Oracle: the packing's definition, digit by digit, over every byte and every number of codes in it.
TEST(EveryByteIsValidExactlyWhereSomeCodesGiveIt) {
  for (const bp_packing packing : {BP_PACK_2BIT, BP_PACK_TRITS}) {
    const bool two_bit = packing == BP_PACK_2BIT;
    for (size_t cols = 1; cols <= (two_bit ? kCodesPerByte2Bit : kCodesPerByteTrits); ++cols) {
      std::map<int, std::vector<int8_t>> valid;
      size_t combinations = 1;
      for (size_t j = 0; j < cols; ++j) combinations *= 3;
      for (size_t n = 0; n < combinations; ++n) {
        std::vector<int8_t> codes(cols);
        int byte = 0, weight = 1;
        for (size_t j = 0, rest = n; j < cols; ++j, rest /= 3, weight *= two_bit ? 4 : 3) {
          codes[j] = static_cast<int8_t>(static_cast<int>(rest % 3) - 1);
          byte += weight * (codes[j] >= 0 ? codes[j] : two_bit ? 3 : 2);
        }
        valid[byte] = codes;
      }
      for (int byte = 0; byte < 256; ++byte) {
        const auto row = static_cast<uint8_t>(byte);
        const auto expected = valid.find(byte);
        CHECK(PackedRowIsValid(&row, cols, packing) == (expected != valid.end()));
        if (expected == valid.end()) continue;
        std::vector<int8_t> codes(cols, 9);
        UnpackRow(&row, cols, packing, codes.data());
        CHECK(codes == expected->second);
      }
    }
  }
}

}  // namespace
}  // namespace bitpress
