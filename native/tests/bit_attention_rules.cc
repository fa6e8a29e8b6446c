// The two other rules of which keys a query attends to. Oracles: limits and softmax from their definitions, key by key;
// the reference kernel for the fast ones.
#include <numeric>

#include "tests/bit_heads.h"

namespace bitpress::test {
namespace {

void CheckFixedLimit(HeadProblem& p, size_t most, const Kernels& kernels) {
  p.keys = {most};
  CheckContexts(p, p.Context([&](size_t i, size_t j) { return p.Mismatches(i, j) <= most; }), kernels);
}

// Key `token` has exactly `mismatches` with the first query: random ones opposed, the others equal.
void PlaceKey(HeadProblem& p, size_t token, size_t mismatches) {
  std::vector<size_t> columns(p.d);
  std::iota(columns.begin(), columns.end(), size_t{0});
  std::shuffle(columns.begin(), columns.end(), Random());
  for (size_t n = 0; n < p.d; ++n) {
    const int sign = p.Sign(p.query, 0, columns[n]);
    p.SetSign(p.key, token, columns[n], n < mismatches ? -sign : sign);
  }
}

TEST(AFixedLimitIsExact) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t tokens : {1, 5, 64, 67}) {
      for (size_t d : {1, 7, 26, 64, 65, 128, 254, 255, 256}) {
        HeadProblem p(tokens, d, tokens % 8);
        // The ends of the scale, which random bits do not reach.
        if (tokens > 4) {
          for (size_t m = 0; m < 3 && m <= d; ++m) PlaceKey(p, m, d - m);
          PlaceKey(p, 3, 0);
        }
        for (size_t most : {size_t{0}, size_t{1}, d / 2, d / 2 + 3, d - 1, size_t{254}, d}) {
          if (most <= d && (most <= 254 || most == d)) CheckFixedLimit(p, most, kernels);
        }
      }
    }
  });
}

// decay[k] = exp(-k step), falling or equal.
std::vector<float> Decay(size_t d, float step) {
  std::vector<float> decay(d + 1);
  for (size_t k = 0; k <= d; ++k) decay[k] = std::exp(-step * static_cast<float>(k));
  return decay;
}

using Counts = std::vector<std::vector<size_t>>;

// Of every query and key.
Counts AllMismatches(const HeadProblem& p) {
  Counts mismatches(p.tokens, std::vector<size_t>(p.tokens));
  for (size_t i = 0; i < p.tokens; ++i) {
    for (size_t j = 0; j < p.tokens; ++j) mismatches[i][j] = p.Mismatches(i, j);
  }
  return mismatches;
}

// p_m of each key of one query, by the definition.
std::vector<float> Probabilities(const std::vector<size_t>& mismatches, const std::vector<float>& decay) {
  const size_t fewest = *std::min_element(mismatches.begin(), mismatches.end());
  float total = 0.0f;
  for (size_t m = fewest; m < decay.size(); ++m) {
    const auto count = std::count(mismatches.begin(), mismatches.end(), m);
    if (count > 0) total = std::fma(static_cast<float>(count), decay[m - fewest], total);
  }
  std::vector<float> probabilities;
  for (size_t m : mismatches) probabilities.push_back(decay[m - fewest] / total);
  return probabilities;
}

TEST(SoftmaxIsExact) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t tokens : {1, 2, 5, 64, 67}) {
      for (size_t d : {1, 7, 26, 31, 32, 64, 65, 256}) {
        HeadProblem p(tokens, d, d % 8);
        if (tokens > 2) PlaceKey(p, 1, d), PlaceKey(p, 2, 0);
        const Counts mismatches = AllMismatches(p);
        for (float step : {0.0f, 0.25f, 3.0f}) {
          const std::vector<float> decay = Decay(d, step);  // the last one reaches 0
          std::vector<std::vector<float>> probabilities;
          for (const auto& row : mismatches) probabilities.push_back(Probabilities(row, decay));
          for (float least : {0.0f, 0.5f / static_cast<float>(tokens), 0.03f, 0.4f, 1.0f}) {
            p.keys = {0, decay.data(), least};
            CheckContexts(p, p.Context([&](size_t i, size_t j) { return probabilities[i][j] >= least; }), kernels);
          }
        }
      }
    }
  });
}

// Equal probabilities: 1 / tokens is attended by all keys where that is the threshold, and by none just below it.
TEST(AProbabilityAtTheThresholdIsAttended) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t tokens : {1, 3, 7, 64, 300}) {
      HeadProblem p(tokens, 26);
      const std::vector<float> equal(27, 1.0f);
      const float each = 1.0f / static_cast<float>(tokens);
      p.keys = {0, equal.data(), each};
      CheckContexts(p, p.Context([](size_t, size_t) { return true; }), kernels);
      p.keys.least = std::nextafter(each, 2.0f);
      CheckContexts(p, std::vector<int>(tokens * 26), kernels);
    }
    // The tie of one probability among others, and the number after it.
    HeadProblem p(50, 64);
    const std::vector<float> decay = Decay(64, 0.125f);
    const Counts mismatches = AllMismatches(p);
    const auto probabilities = Probabilities(mismatches[49], decay);
    for (float tie : probabilities) {
      for (float least : {tie, std::nextafter(tie, 2.0f)}) {
        p.keys = {0, decay.data(), least};
        const auto context = p.Run(kernels);
        for (size_t c = 0; c < p.d; ++c) {
          int expected = 0;
          for (size_t j = 0; j < p.tokens; ++j) expected += probabilities[j] >= least ? p.Sign(p.value, j, c) : 0;
          CHECK(context[49 * (p.d + 1) + c] == expected);
        }
      }
    }
  });
}

TEST(AQueryMayAttendToNothing) {
  ForEveryIsa([](const Kernels& kernels) {
    HeadProblem p(70, 64);
    const std::vector<float> decay = Decay(64, 0.25f);
    p.keys = {0, decay.data(), 1.25f};
    CheckContexts(p, std::vector<int>(70 * 64), kernels);
  });
}

TEST(FastIsasMatchTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    for (size_t tokens : {251, 253, 512}) {
      for (size_t d : {64, 256}) {
        HeadProblem p(tokens, d, 64);
        p.keys = {d};
        CHECK_MSG(p.Run(kernels) == p.Run(reference), p.Shape());
        const std::vector<float> decay = Decay(d, 0.25f);
        p.keys = {0, decay.data(), 0.01f};
        CHECK_MSG(p.Run(kernels) == p.Run(reference), p.Shape());
      }
    }
  });
}

}  // namespace
}  // namespace bitpress::test
