// Slow reference: one element at a time.
#include "kernels/embedding/embedding.h"

namespace bitpress::reference {
namespace {

int CodeAt(const uint8_t* codes, size_t j, unsigned bits) {
  int code = 0;
  for (size_t bit = 0; bit < bits; ++bit) {
    const size_t at = j * bits + bit;
    code |= (codes[at / 8] >> (at % 8) & 1) << bit;
  }
  return code;
}

}  // namespace

void DecodeTwoBitRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  for (size_t j = 0; j < cols; ++j) {
    const int bits = codes[j / 4] >> (2 * (j % 4)) & 3;
    const int code = bits < 2 ? bits : bits - 4;  // two's complement of two bits
    y[j] = scale * static_cast<float>(code);
  }
}

void DecodeTritsRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  for (size_t j = 0; j < cols; ++j) {
    int byte = codes[j / 5];
    for (size_t digit = 0; digit < j % 5; ++digit) byte /= 3;
    const int code = byte % 3 == 2 ? -1 : byte % 3;
    y[j] = scale * static_cast<float>(code);
  }
}

void DecodeUniformRow(const uint8_t* codes, size_t cols, unsigned bits, int zero, float scale, float offset, float* y) {
  for (size_t j = 0; j < cols; ++j) y[j] = scale * static_cast<float>(CodeAt(codes, j, bits) - zero) + offset;
}

void DecodeCodebookRow(const uint8_t* codes, size_t cols, unsigned bits, const float (&values)[16], float* y) {
  for (size_t j = 0; j < cols; ++j) y[j] = values[CodeAt(codes, j, bits)];
}

void DecodeBinaryRow(const uint8_t* codes, size_t cols, float scale, float* y) {
  for (size_t j = 0; j < cols; ++j) y[j] = codes[j / 8] >> (j % 8) & 1 ? scale : -scale;
}

void DecodeTwoTermsRow(const uint8_t* const (&codes)[2], size_t cols, const float (&scales)[2], float* y) {
  for (size_t j = 0; j < cols; ++j) {
    const float first = codes[0][j / 8] >> (j % 8) & 1 ? scales[0] : -scales[0];
    const float second = codes[1][j / 8] >> (j % 8) & 1 ? scales[1] : -scales[1];
    y[j] = first + second;
  }
}

void AddRows(const float* type, const float* position, size_t cols, float* y) {
  for (size_t j = 0; j < cols; ++j) y[j] = (y[j] + type[j]) + position[j];
}

}  // namespace bitpress::reference
