// Finished models through the C ABI: what a forward pass checks and writes, alone and from several threads.
#include <algorithm>
#include <limits>
#include <thread>

#include "tests/abi_models.h"

namespace bitpress {
namespace {

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
  const size_t rows = config.head == BP_HEAD_TOKENS ? ids.size() : lengths.size();
  // Exactly as large as documented, on the heap: AddressSanitizer sees a write beyond.
  const size_t values = rows * config.num_labels;
  std::vector<float> logits(values, NAN), same(values, NAN), hidden(2 * 12 * 6, NAN);
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
  for (const bp_config& config : {FloatConfig(), TinyConfig(), four_bits, BinaryConfig(), ElasticConfig(), all}) {
    CheckWrites(OfTokens(config));
    for (const bp_head head : {BP_HEAD_MEAN, BP_HEAD_CLS, BP_HEAD_MAX}) CheckWrites(OfVectors(config, head));
  }
}

TEST(VectorsArePooledOfTheLastHiddenStates) {
  const int32_t ids[] = {1, 10, 3, 7};
  const uint32_t lengths[] = {1, 3};
  for (const bp_config& base : {FloatConfig(), TinyConfig(), BinaryConfig(), ElasticConfig()}) {
    for (const bp_head head : {BP_HEAD_MEAN, BP_HEAD_CLS, BP_HEAD_MAX}) {
      ModelPtr model = Finished(OfVectors(base, head));
      float vectors[2 * 6], states[2 * 4 * 6];
      CHECK(bp_forward(model.get(), ids, nullptr, lengths, 2, vectors, states, 1) == BP_OK);
      const float* last = states + 4 * 6;
      for (size_t h = 0; h < 6; ++h) {
        const float a = last[6 + h], b = last[12 + h], c = last[18 + h];  // of the second sequence
        const float mean = (a + b + c) / 3.0f, most = std::max({a, b, c});
        const float expected = head == BP_HEAD_MEAN ? mean : head == BP_HEAD_MAX ? most : a;
        CHECK(vectors[h] == last[h]);
        CHECK(vectors[6 + h] == expected);
      }
    }
  }
}

// Filled gives classifier.weight[c][h] = 0.1 * ((6c + h) % 13) - 0.5, and classifier.bias[c] = 0.1 * c - 0.5.
TEST(TokenLogitsAreTheClassifierOfTheLastHiddenStates) {
  const int32_t ids[] = {1, 10, 3, 7};
  const uint32_t lengths[] = {1, 3};
  for (const bp_config& base : {FloatConfig(), TinyConfig(), BinaryConfig(), ElasticConfig()}) {
    ModelPtr model = Finished(OfTokens(base));
    float logits[4 * 2], states[2 * 4 * 6];
    CHECK(bp_forward(model.get(), ids, nullptr, lengths, 2, logits, states, 1) == BP_OK);
    for (size_t token = 0; token < 4; ++token) {
      for (size_t c = 0; c < 2; ++c) {
        double expected = 0.1 * static_cast<double>(c) - 0.5;
        for (size_t h = 0; h < 6; ++h) {
          expected += (0.1 * static_cast<double>((6 * c + h) % 13) - 0.5) * states[4 * 6 + token * 6 + h];
        }
        // Weights and states are a few units: fp32 roundings of six products stay far below this.
        CHECK(std::fabs(logits[token * 2 + c] - expected) < 1e-5);
      }
    }
  }
}

TEST(AModelOfVectorsHasNeitherPoolerNorClassifier) {
  const std::vector<float> values(36);
  ModelPtr model = Create(OfVectors(TinyConfig(), BP_HEAD_MEAN));
  for (const char* name : {"pooler.dense.weight", "classifier.weight"}) {
    CHECK_REFUSED(bp_model_set_float(model.get(), name, values.data(), 6, 6), BP_INVALID_ARGUMENT, "unknown name");
  }
}

TEST(AModelOfTokensHasNoPooler) {
  const std::vector<float> values(36);
  ModelPtr model = Create(OfTokens(TinyConfig()));
  CHECK_REFUSED(bp_model_set_float(model.get(), "pooler.dense.weight", values.data(), 6, 6), BP_INVALID_ARGUMENT,
                "'pooler.dense.weight': unknown name");
  CHECK_REFUSED(bp_model_set_range(model.get(), "pooler.input", 1.0f, 0.0f), BP_INVALID_ARGUMENT,
                "'pooler.input': unknown activation point");
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

TEST(ForwardWithEmbeddingsOfAnotherWidth) {
  for (bp_config config : {FloatConfig(), TinyConfig(), BinaryConfig(), ElasticConfig()}) {
    for (const uint32_t size : {1u, 5u, 7u, 33u}) {
      config.embedding_size = size;
      CheckWrites(config);
    }
  }
}

TEST(AProjectionIsGivenAsFloatsAndOnlyWhereThereIsOne) {
  bp_config config = TinyConfig();
  const std::vector<float> data(6 * 4);
  const std::vector<uint8_t> codes = Rows(0, 6, 8);
  const bp_packed packed = Ternary(codes, 6, 4);
  const char* name = "embeddings.projection.weight";
  ModelPtr without = Create(config);
  CHECK_REFUSED(bp_model_set_float(without.get(), name, data.data(), 6, 4), BP_INVALID_ARGUMENT, "unknown name");
  config.embedding_size = 4;
  ModelPtr model = Create(config);
  CHECK_REFUSED(bp_model_set_packed(model.get(), name, &packed), BP_INVALID_ARGUMENT, "given packed, must be fp32");
  CHECK(bp_model_set_float(model.get(), name, data.data(), 6, 4) == BP_OK);
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

}  // namespace
}  // namespace bitpress
