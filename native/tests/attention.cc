// Oracles: softmax attention in double for the references; the references, bit for bit, for the rest.
#include "kernels/attention/attention.h"

#include <algorithm>

#include "tests/check.h"
#include "tests/isas.h"

namespace bitpress::test {
namespace {

// Query, key and value of one head beside each other, as a projection of three heads would leave them.
struct Problem {
  size_t tokens, d, stride;
  std::vector<float> query, key, value;

  Problem(size_t tokens, size_t d) : tokens(tokens), d(d), stride(3 * d) {
    // Exactly up to the last value that may be read.
    const size_t count = (tokens - 1) * stride + d;
    query = RandomFloats(count);
    key = RandomFloats(count);
    value = RandomFloats(count);
  }

  template <class F>
  std::vector<float> Run(F attention) const {
    const size_t context_stride = d + 3;
    std::vector<float> context((tokens - 1) * context_stride + d, -77.0f);
    const AttentionHead head{query.data(), key.data(), value.data(), stride, context.data(), context_stride, tokens, d};
    const AlignedBuffer scratch = AllocateAligned(AttentionScratchBytes(tokens, d));
    attention(head, scratch.get());
    for (size_t i = 0; i < context.size(); ++i) {
      if (i % context_stride >= d) CHECK(context[i] == -77.0f);
    }
    return context;
  }
  std::vector<float> RunFloat(const Kernels& kernels) const {
    return Run([&](const AttentionHead& head, void* scratch) { kernels.attention_float(head, scratch); });
  }
  std::vector<float> RunUint8(const Kernels& kernels, const AttentionSpecs& specs) const {
    return Run([&](const AttentionHead& head, void* scratch) { kernels.attention_uint8(head, specs, scratch); });
  }
  std::string Shape() const { return std::to_string(tokens) + " tokens, head size " + std::to_string(d); }
};

AttentionSpecs Specs(bool symmetric, unsigned bits = 8) {
  AttentionSpecs specs;
  for (QuantizeSpec* spec : {&specs.query, &specs.key, &specs.value, &specs.probabilities}) {
    spec->symmetric = symmetric;
    spec->bits = bits;
  }
  specs.probabilities.nonnegative = true;
  return specs;
}

AttentionSpecs StaticSpecs(unsigned bits = 8) {
  AttentionSpecs specs = Specs(false, bits);
  const float highest = bits == 8 ? 255.0f : 15.0f;
  for (QuantizeSpec* spec : {&specs.query, &specs.key, &specs.value}) {
    spec->is_static = true;
    spec->scale = 5.0f / highest;
    spec->offset = -2.5f;
  }
  specs.probabilities.is_static = true;
  specs.probabilities.scale = 0.4f / highest;
  specs.probabilities.clip = 0.1f;  // attention.h clips no probabilities
  return specs;
}

// Dense tokens x d matrices to context and largest probability of each query, in double.
struct DoubleAttention {
  std::vector<double> context, largest;
  DoubleAttention(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
                  size_t tokens, size_t d)
      : context(tokens * d), largest(tokens) {
    for (size_t i = 0; i < tokens; ++i) {
      std::vector<double> p(tokens);
      for (size_t j = 0; j < tokens; ++j) {
        for (size_t c = 0; c < d; ++c) p[j] += q[i * d + c] * k[j * d + c];
        p[j] /= std::sqrt(static_cast<double>(d));
      }
      const double max = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& x : p) sum += x = std::exp(x - max);
      for (size_t j = 0; j < tokens; ++j) {
        p[j] /= sum;
        largest[i] = std::max(largest[i], p[j]);
        for (size_t c = 0; c < d; ++c) context[i * d + c] += p[j] * v[j * d + c];
      }
    }
  }
};

std::vector<double> Dense(const std::vector<float>& x, const Problem& p) {
  std::vector<double> dense(p.tokens * p.d);
  for (size_t i = 0; i < dense.size(); ++i) dense[i] = x[i / p.d * p.stride + i % p.d];
  return dense;
}

TEST(FewerQueriesThanTokensGetTheSameContext) {
  ForEveryIsa([&](const Kernels& kernels) {
    for (const size_t queries : {1, 5, 13}) {
      const Problem p(29, 26);
      const size_t context_stride = p.d + 3;
      const AlignedBuffer scratch = AllocateAligned(AttentionScratchBytes(p.tokens, p.d));
      for (const bool uint8 : {false, true}) {
        const auto all = uint8 ? p.RunUint8(kernels, Specs(false)) : p.RunFloat(kernels);
        // Queries end where they may no longer be read; contexts of others stay as they are.
        const std::vector<float> query(p.query.begin(), p.query.begin() + (queries - 1) * p.stride + p.d);
        std::vector<float> context(all.size(), -77.0f);
        const AttentionHead head{query.data(), p.key.data(), p.value.data(), p.stride, context.data(), context_stride,
                                 p.tokens,     p.d,          queries};
        if (uint8) {
          kernels.attention_uint8(head, Specs(false), scratch.get());
        } else {
          kernels.attention_float(head, scratch.get());
        }
        for (size_t i = 0; i < context.size(); ++i) {
          const bool asked = i / context_stride < queries && i % context_stride < p.d;
          CHECK_MSG(context[i] == (asked ? all[i] : -77.0f), std::string(kernels.isa));
        }
      }
    }
  });
}

TEST(FloatReferenceMatchesDouble) {
  const Problem p(37, 13);
  const DoubleAttention expected(Dense(p.query, p), Dense(p.key, p), Dense(p.value, p), p.tokens, p.d);
  const auto context = p.RunFloat(*KernelsFor("reference"));
  for (size_t i = 0; i < p.tokens * p.d; ++i) {
    // Scores of magnitude ~10 carry ~10 * 13 roundings of 2^-24, which exp passes on as relative error; values are ~3.
    CHECK(std::fabs(context[i / p.d * (p.d + 3) + i % p.d] - expected.context[i]) <= 3.0 * 130.0 * 0x1p-24);
  }
}

TEST(Uint8ReferenceMatchesDoubleOnTheDecodedCodes) {
  for (const AttentionSpecs& specs : {Specs(false), Specs(true), Specs(false, 4), Specs(true, 4)}) {
    const Problem p(37, 13);
    const Kernels& reference = *KernelsFor("reference");
    std::vector<uint8_t> codes(p.tokens * p.d);
    std::vector<float> scale(p.tokens), offset(p.tokens);
    const auto decode = [&](const std::vector<float>& x, const QuantizeSpec& spec, bool block) {
      if (block) {
        reference.quantize_block(x.data(), p.stride, p.tokens, p.d, spec, codes.data(), p.d, &scale[0], &offset[0]);
      } else {
        reference.quantize_rows(x.data(), p.stride, p.tokens, p.d, spec, codes.data(), p.d, scale.data(), offset.data(),
                                nullptr);
      }
      std::vector<double> decoded(codes.size());
      for (size_t i = 0; i < codes.size(); ++i) {
        const size_t row = block ? 0 : i / p.d;
        decoded[i] = double{scale[row]} * codes[i] + double{offset[row]};
      }
      return decoded;
    };
    const auto q = decode(p.query, specs.query, false), k = decode(p.key, specs.key, false),
               v = decode(p.value, specs.value, true);
    const DoubleAttention expected(q, k, v, p.tokens, p.d);
    double largest_value = 0;
    for (double x : v) largest_value = std::max(largest_value, std::fabs(x));
    const auto context = p.RunUint8(reference, specs);
    for (size_t i = 0; i < p.tokens * p.d; ++i) {
      // Rounding a probability to a code errs by at most half a step, of 255, 127, 15 or 7 that make the largest one;
      // 1e-4 for fp32.
      const double half_step = expected.largest[i / p.d] / ((1 << (specs.query.bits - specs.query.symmetric)) - 1) / 2;
      const double bound = static_cast<double>(p.tokens) * half_step * largest_value + 1e-4;
      CHECK(std::fabs(context[i / p.d * (p.d + 3) + i % p.d] - expected.context[i]) <= bound);
    }
  }
}

TEST(EveryIsaMatchesTheReference) {
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
    for (size_t tokens : {1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 64, 129}) {
      for (size_t d : {1, 5, 8, 16, 26, 32, 33, 64}) {
        const Problem p(tokens, d);
        CHECK_MSG(SameBits(p.RunFloat(kernels), p.RunFloat(reference)), "fp32, " + p.Shape());
        for (const AttentionSpecs& specs :
             {Specs(false), Specs(true), StaticSpecs(), Specs(false, 4), Specs(true, 4), StaticSpecs(4)}) {
          CHECK_MSG(SameBits(p.RunUint8(kernels, specs), p.RunUint8(reference, specs)),
                    std::to_string(specs.query.bits) + "-bit, " + p.Shape());
        }
      }
    }
    const Problem p(515, 7);
    CHECK_MSG(SameBits(p.RunFloat(kernels), p.RunFloat(reference)), p.Shape());
    CHECK_MSG(SameBits(p.RunUint8(kernels, Specs(false)), p.RunUint8(reference, Specs(false))), p.Shape());
  });
}

// Queries, keys and values of 0 and 1 only, all but one value in a hundred 1: codes of 255 everywhere, and as all
// scores are nearly equal, probabilities too. The largest sums there are.
TEST(ExtremeCodesAreExact) {
  for (bool symmetric : {false, true}) {
    for (size_t tokens : {3, 17, 300}) {
      for (size_t d : {26, 64, 257}) {
        Problem p(tokens, d);
        for (auto* x : {&p.query, &p.key, &p.value}) {
          for (float& v : *x) v = RandomInt(0, 99) == 0 ? (symmetric ? -1.0f : 0.0f) : 1.0f;
        }
        for (size_t i = 0; i < p.query.size(); i += p.stride) p.query[i] = p.key[i] = p.value[i] = 0.0f;
        for (float& v : p.query) v *= 1e-3f;
        ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
          CHECK_MSG(SameBits(p.RunUint8(kernels, Specs(symmetric)), p.RunUint8(reference, Specs(symmetric))),
                    p.Shape());
        });
      }
    }
  }
}

// Ranges of every magnitude beside each other, also such as need the division, and a clip.
TEST(RowsOfVeryDifferentRanges) {
  for (float clip : {0.0f, 0.5f}) {
    for (bool symmetric : {false, true}) {
      Problem p(21, 26);
      for (size_t i = 0; i < p.query.size(); ++i) {
        const size_t row = i / p.stride;
        if (row % 4 == 1) p.key[i] = p.query[i] *= 1e-30f;
        if (row % 4 == 2) p.query[i] = 0.25f;
        if (row % 8 == 3) p.query[i] *= 1e19f;
        if (row % 8 == 7) p.key[i] *= 1e-42f;
      }
      AttentionSpecs specs = Specs(symmetric);
      specs.query.clip = specs.key.clip = specs.value.clip = specs.probabilities.clip = clip;
      ForEveryFastIsa([&](const Kernels& kernels, const Kernels& reference) {
        CHECK(SameBits(p.RunUint8(kernels, specs), p.RunUint8(reference, specs)));
      });
    }
  }
}

TEST(ConstantZeroAndNonFiniteInputs) {
  for (float filler : {0.0f, 3.0f, 1e30f, INFINITY, NAN}) {
    Problem p(9, 10);
    std::fill(p.query.begin(), p.query.end(), filler);
    p.key[3 * p.stride] = filler;
    std::fill(p.value.begin(), p.value.end(), filler);
    const auto expected_float = p.RunFloat(*KernelsFor("reference"));
    const auto expected_uint8 = p.RunUint8(*KernelsFor("reference"), Specs(false));
    if (filler == 3.0f) {
      // Equal values average to themselves: exactly in 8 bits only up to the code of the probabilities' sum.
      for (size_t i = 0; i < p.d; ++i) CHECK(std::fabs(expected_float[i] - 3.0f) <= 9 * 3.0f * 0x1p-23f);
    }
    if (std::isnan(filler)) CHECK(std::isnan(expected_float[0]) && std::isnan(expected_uint8[0]));
    ForEveryFastIsa([&](const Kernels& kernels, const Kernels&) {
      CHECK(SameBits(p.RunFloat(kernels), expected_float));
      CHECK(SameBits(p.RunUint8(kernels, Specs(false)), expected_uint8));
    });
  }
}

}  // namespace
}  // namespace bitpress::test
