// Oracles: Bi-Attention on the values themselves, from the definition, by its other form S = 2 A - 1 with column sums;
// the reference kernel for the fast ones; the worked numbers of BiBERT's BAMM.
#include "tests/bit_heads.h"

namespace bitpress::test {
namespace {

void CheckAgainstTheDefinition(const HeadProblem& p, const Kernels& kernels) {
  const auto attended = [&](size_t i, size_t j) {
    int score = 0;
    for (size_t c = 0; c < p.d; ++c) score += p.Sign(p.query, i, c) * p.Sign(p.key, j, c);
    return score >= 0;
  };
  CheckContexts(p, p.Context(attended), kernels);
}

TEST(EveryIsaMatchesTheDefinition) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t tokens : {1, 2, 3, 4, 5, 11, 12, 13, 63, 64, 65, 100}) {
      for (size_t d : {1, 7, 8, 26, 32, 64, 65, 128}) CheckAgainstTheDefinition(HeadProblem(tokens, d), kernels);
    }
    CheckAgainstTheDefinition(HeadProblem(70, 256), kernels);
    // Heads of 26 that start at any bit of a byte.
    for (size_t first_bit : {26, 52, 78, 104, 64, 1}) CheckAgainstTheDefinition(HeadProblem(9, 26, first_bit), kernels);
    CheckAgainstTheDefinition(HeadProblem(9, 64, 3), kernels);
    CheckAgainstTheDefinition(HeadProblem(9, 250, 13), kernels);
  });
}

TEST(FastIsasMatchTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    // Around the byte accumulator of 252 keys and the depth block of 1,008.
    for (size_t tokens : {128, 251, 252, 253, 384, 512, 1009}) {
      const HeadProblem p(tokens, 64, 64);
      CHECK_MSG(p.Run(kernels) == p.Run(reference), p.Shape());
    }
  });
}

TEST(AllAttendedAndNoneAttended) {
  ForEveryIsa([](const Kernels& kernels) {
    for (int query : {1, -1}) {
      HeadProblem p(300, 64);
      for (size_t i = 0; i < p.tokens; ++i) {
        for (size_t c = 0; c < p.d; ++c) {
          p.SetSign(p.query, i, c, query);
          p.SetSign(p.key, i, c, 1);
          p.SetSign(p.value, i, c, c % 2 == 0 ? 1 : -1);
        }
      }
      const auto context = p.Run(kernels);
      for (size_t i = 0; i < p.tokens; ++i) {
        for (size_t c = 0; c < p.d; ++c) {
          // None attended: the sum of nothing, and its sign is +1.
          CHECK(context[i * 65 + c] == (query < 0 ? 0 : c % 2 == 0 ? 300 : -300));
        }
      }
      if (query < 0) {
        const std::vector<int32_t> zero(64);
        const auto bits = p.RunBits(kernels, PackThresholds(zero.data(), nullptr, 64));
        for (size_t i = 0; i < bits.size(); ++i) CHECK(bits[i] == (i % 9 == 8 ? 0x5A : 0xFF));
      }
    }
  });
}

TEST(AScoreOfZeroIsAttended) {
  // BiBERT's paper has bool(x) = 1 where x >= 0: two dimensions, one equal and one not.
  ForEveryIsa([](const Kernels& kernels) {
    HeadProblem p(1, 2);
    p.query[0] = 0b11;
    p.key[0] = 0b01;
    p.value[0] = 0b10;
    const auto context = p.Run(kernels);
    CHECK(context[0] == -1 && context[1] == 1);
  });
}

// BAMM: A rows (1011), (0000), (1111) on V rows (+,-), (+,+), (-,-), (+,-) give [[1,-3],[0,0],[2,-2]].
TEST(WorkedNumbers) {
  const int attended[3][4] = {{1, 0, 1, 1}, {0, 0, 0, 0}, {1, 1, 1, 1}};
  const int values[4][2] = {{1, -1}, {1, 1}, {-1, -1}, {1, -1}};
  const int expected[3][2] = {{1, -3}, {0, 0}, {2, -2}};
  // As a linear layer of zeros and ones: rows of A times the columns of V.
  std::vector<uint8_t> a(3), v(2);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) a[i] |= static_cast<uint8_t>(attended[i][j] << j);
  }
  for (int c = 0; c < 2; ++c) {
    for (int j = 0; j < 4; ++j) v[c] |= static_cast<uint8_t>((values[j][c] > 0) << j);
  }
  const float ones[2] = {1.0f, 1.0f};
  const BinaryAffine affine = PackAffine(ones, nullptr, 2);
  ForEveryIsa([&](const Kernels& kernels) {
    const BinaryMatrix w = PackBinary(v.data(), 2, 4, kernels.binary_layout);
    const AlignedBuffer scratch = AllocateAligned(BinaryLinearScratchBytes(w));
    float y[6];
    kernels.binary_linear_float({a.data(), 1, 3, BitSet::kZeroOne}, w, affine, 0, 1, y, 2, scratch.get());
    for (int i = 0; i < 6; ++i) CHECK(y[i] == static_cast<float>(expected[i / 2][i % 2]));
  });
}

TEST(TiesAreAsFrequentAsFairBitsHaveThem) {
  // P(q . k = 0) = C(64,32) / 2^64 = 0.09935, and P(attended) = (1 + that) / 2 = 0.5497. Values of all +1 count the
  // attended keys: 128 * 512^2 / 512 pairs err by 0.003 at most but for one run in 10^9.
  ForEveryIsa([](const Kernels& kernels) {
    if (std::string(kernels.isa) == "reference") return;  // too slow for this many pairs
    double attended = 0;
    for (int repeat = 0; repeat < 4; ++repeat) {
      HeadProblem p(512, 64);
      std::fill(p.value.begin(), p.value.end(), uint8_t{0xFF});
      const auto context = p.Run(kernels);
      for (size_t i = 0; i < p.tokens; ++i) attended += context[i * 65];
    }
    CHECK(std::fabs(attended / (4.0 * 512 * 512) - 0.5497) < 0.003);
  });
}

}  // namespace
}  // namespace bitpress::test
