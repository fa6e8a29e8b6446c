// Oracles: Bi-Attention on the values themselves, from the definition, by its other form S = 2 A - 1 with column sums;
// the reference kernel for AVX2; the worked numbers of BiBERT's BAMM.
#include "kernels/bit_attention/bit_attention.h"

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

struct Problem {
  size_t tokens, d, first_bit, stride;
  std::vector<uint8_t> query, key, value;

  Problem(size_t tokens, size_t d, size_t first_bit = 0)
      : tokens(tokens), d(d), first_bit(first_bit), stride(BitRowBytes(first_bit + d) + 2) {
    for (auto* rows : {&query, &key, &value}) {
      rows->resize((tokens - 1) * stride + stride - 2);  // exactly up to the last byte that may be read
      for (uint8_t& byte : *rows) byte = static_cast<uint8_t>(RandomInt(0, 255));  // other heads' bits too
    }
  }
  BitHead Head() const { return {query.data(), key.data(), value.data(), stride, first_bit, tokens, d}; }

  int Sign(const std::vector<uint8_t>& rows, size_t token, size_t c) const {
    const size_t bit = first_bit + c;
    return rows[token * stride + bit / 8] >> (bit % 8) & 1 ? 1 : -1;
  }
  void SetSign(std::vector<uint8_t>& rows, size_t token, size_t c, int sign) const {
    const size_t bit = first_bit + c;
    uint8_t& byte = rows[token * stride + bit / 8];
    byte = static_cast<uint8_t>(sign > 0 ? byte | 1 << bit % 8 : byte & ~(1 << bit % 8));
  }

  // A V = (S V + 1 V) / 2.
  std::vector<int> Expected() const {
    std::vector<int> context(tokens * d);
    for (size_t i = 0; i < tokens; ++i) {
      std::vector<int> s(tokens);
      for (size_t j = 0; j < tokens; ++j) {
        int score = 0;
        for (size_t c = 0; c < d; ++c) score += Sign(query, i, c) * Sign(key, j, c);
        s[j] = score >= 0 ? 1 : -1;
      }
      for (size_t c = 0; c < d; ++c) {
        int signs = 0, column = 0;
        for (size_t j = 0; j < tokens; ++j) {
          signs += s[j] * Sign(value, j, c);
          column += Sign(value, j, c);
        }
        context[i * d + c] = (signs + column) / 2;
      }
    }
    return context;
  }

  std::vector<int16_t> Run(const Kernels& kernels) const {
    std::vector<int16_t> context(tokens * (d + 1), -777);
    const AlignedBuffer scratch = AllocateAligned(BitAttentionScratchBytes(tokens, d));
    kernels.bit_attention(Head(), context.data(), d + 1, scratch.get());
    return context;
  }
  std::vector<uint8_t> RunBits(const Kernels& kernels, const BinaryThresholds& thresholds) const {
    std::vector<uint8_t> bits(tokens * (BitRowBytes(d) + 1), 0x5A);
    const AlignedBuffer scratch = AllocateAligned(BitAttentionScratchBytes(tokens, d));
    kernels.bit_attention_bits(Head(), thresholds, bits.data(), BitRowBytes(d) + 1, scratch.get());
    return bits;
  }
  std::string Shape() const {
    return std::to_string(tokens) + " tokens, head size " + std::to_string(d) + ", from bit " +
           std::to_string(first_bit);
  }
};

void CheckAgainstTheDefinition(const Problem& p, const Kernels& kernels) {
  const std::vector<int> expected = p.Expected();
  const auto context = p.Run(kernels);
  std::vector<int32_t> threshold(p.d);
  std::vector<uint8_t> flip(p.d);
  for (size_t c = 0; c < p.d; ++c) {
    threshold[c] = RandomInt(-2, 2);
    flip[c] = static_cast<uint8_t>(RandomInt(0, 1));
  }
  const auto bits = p.RunBits(kernels, PackThresholds(threshold.data(), flip.data(), p.d));
  for (size_t i = 0; i < p.tokens; ++i) {
    const uint8_t* row = &bits[i * (BitRowBytes(p.d) + 1)];
    for (size_t c = 0; c < BitRowBytes(p.d) * 8; ++c) {
      const bool bit = row[c / 8] >> (c % 8) & 1;
      if (c >= p.d) {
        CHECK_MSG(!bit, p.Shape());
        continue;
      }
      CHECK_MSG(context[i * (p.d + 1) + c] == expected[i * p.d + c], p.Shape());
      CHECK_MSG(bit == ((expected[i * p.d + c] >= threshold[c]) != (flip[c] == 1)), p.Shape());
    }
    CHECK(context[i * (p.d + 1) + p.d] == -777 && row[BitRowBytes(p.d)] == 0x5A);
  }
}

TEST(EveryIsaMatchesTheDefinition) {
  ForEveryIsa([](const Kernels& kernels) {
    for (size_t tokens : {1, 2, 3, 4, 5, 11, 12, 13, 63, 64, 65, 100}) {
      for (size_t d : {1, 7, 8, 26, 32, 64, 65, 128}) CheckAgainstTheDefinition(Problem(tokens, d), kernels);
    }
    CheckAgainstTheDefinition(Problem(70, 256), kernels);
    // Heads of 26 that start at any bit of a byte.
    for (size_t first_bit : {26, 52, 78, 104, 64, 1}) CheckAgainstTheDefinition(Problem(9, 26, first_bit), kernels);
    CheckAgainstTheDefinition(Problem(9, 64, 3), kernels);
    CheckAgainstTheDefinition(Problem(9, 250, 13), kernels);
  });
}

TEST(FastIsasMatchTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    // Around the byte accumulator of 252 keys and the depth block of 1,008.
    for (size_t tokens : {128, 251, 252, 253, 384, 512, 1009}) {
      const Problem p(tokens, 64, 64);
      CHECK_MSG(p.Run(kernels) == p.Run(reference), p.Shape());
    }
  });
}

TEST(AllAttendedAndNoneAttended) {
  ForEveryIsa([](const Kernels& kernels) {
    for (int query : {1, -1}) {
      Problem p(300, 64);
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
    Problem p(1, 2);
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
  const BinaryMatrix w = PackBinary(v.data(), 2, 4);
  const float ones[2] = {1.0f, 1.0f};
  const BinaryAffine affine = PackAffine(ones, nullptr, 2);
  ForEveryIsa([&](const Kernels& kernels) {
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
      Problem p(512, 64);
      std::fill(p.value.begin(), p.value.end(), uint8_t{0xFF});
      const auto context = p.Run(kernels);
      for (size_t i = 0; i < p.tokens; ++i) attended += context[i * 65];
    }
    CHECK(std::fabs(attended / (4.0 * 512 * 512) - 0.5497) < 0.003);
  });
}

}  // namespace
}  // namespace bitpress::test
