// A head of bits for the tests of bit attention.
#pragma once

#include "kernels/bit_attention/bit_attention.h"
#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {

// Random bits of one head of one sequence, and how to run it. Bi-Attention's rule, unless `keys` is set to another.
struct HeadProblem {
  size_t tokens, d, first_bit, stride;
  std::vector<uint8_t> query, key, value;
  AttendedKeys keys;

  HeadProblem(size_t tokens, size_t d, size_t first_bit = 0)
      : tokens(tokens), d(d), first_bit(first_bit), stride(BitRowBytes(first_bit + d) + 2) {
    keys.most = d / 2;
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

  size_t Mismatches(size_t i, size_t j) const {
    size_t mismatches = 0;
    for (size_t c = 0; c < d; ++c) mismatches += Sign(query, i, c) != Sign(key, j, c);
    return mismatches;
  }

  // attended(i, j): whether query i attends to key j. A V = (S V + 1 V) / 2 with S = 2 A - 1.
  template <class Attended>
  std::vector<int> Context(Attended attended) const {
    std::vector<int> context(tokens * d);
    for (size_t i = 0; i < tokens; ++i) {
      std::vector<int> s(tokens);
      for (size_t j = 0; j < tokens; ++j) s[j] = attended(i, j) ? 1 : -1;
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
    kernels.bit_attention(Head(), keys, context.data(), d + 1, scratch.get());
    return context;
  }
  std::vector<uint8_t> RunBits(const Kernels& kernels, const BinaryThresholds& thresholds) const {
    std::vector<uint8_t> bits(tokens * (BitRowBytes(d) + 1), 0x5A);
    const AlignedBuffer scratch = AllocateAligned(BitAttentionScratchBytes(tokens, d));
    kernels.bit_attention_bits(Head(), keys, thresholds, bits.data(), BitRowBytes(d) + 1, scratch.get());
    return bits;
  }
  std::string Shape() const {
    return std::to_string(tokens) + " tokens, head size " + std::to_string(d) + ", from bit " +
           std::to_string(first_bit);
  }
};

// Contexts, and bits by thresholds that differ from column to column; nothing beyond is written.
inline void CheckContexts(const HeadProblem& p, const std::vector<int>& expected, const Kernels& kernels) {
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

}  // namespace bitpress::test
