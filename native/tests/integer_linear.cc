// Oracles: int64 sums over the stored codes and the formulas of integer_linear.h; the reference kernel, bit for bit.
#include "kernels/integer_linear/integer_linear.h"

#include <algorithm>

#include "tests/isas.h"
#include "tests/packing.h"

namespace bitpress::test {
namespace {

IntegerMatrix Pack(const PackedWeights& weights, const float* bias) {
  IntegerMatrix m = MakeIntegerMatrix(weights, bias);
  std::vector<uint8_t> scratch(PackScratchBytes(m));
  for (size_t p = 0; p < m.panels; ++p) CHECK(PackPanel(weights, p, scratch.data(), &m) == m.outputs);
  return m;
}

constexpr CodeFormat kBinary = {CodeScheme::kBinary, 1, false, false};

// Of two terms the codes and scales of the second follow those of the first.
struct Problem {
  CodeFormat format;
  size_t rows, outputs, inputs, group_rows, group_inputs, terms;
  std::vector<int> codes;
  std::vector<int8_t> table;
  std::vector<float> scale, offset, bias;
  std::vector<uint16_t> outlier_counts, outlier_columns;
  std::vector<float> outliers;
  std::vector<uint8_t> a;
  std::vector<float> a_scale, a_offset;
  IntegerMatrix w;

  // group_rows, group_inputs: 0 means all.
  Problem(const CodeFormat& format, size_t rows, size_t outputs, size_t inputs, size_t group_rows = 0,
          size_t group_inputs = 0, size_t terms = 1)
      : format(format),
        rows(rows),
        outputs(outputs),
        inputs(inputs),
        group_rows(group_rows == 0 ? outputs : group_rows),
        group_inputs(group_inputs == 0 ? inputs : group_inputs),
        terms(terms),
        codes(RandomCodes(format, terms * outputs * inputs)),
        table(size_t{1} << format.bits) {
    scale = RandomFloats(terms * RowGroups() * Groups(), 0.05f);
    for (float& s : scale) s = std::fabs(s) + 1e-3f;
    if (format.scheme == CodeScheme::kUniform && !format.symmetric) offset = RandomFloats(scale.size());
    for (int8_t& t : table) t = static_cast<int8_t>(RandomInt(-128, 127));
    bias = RandomFloats(outputs);
    a_scale = RandomFloats(rows, 0.01f);
    a_offset = RandomFloats(rows);
    a.resize(rows * Stride());
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<uint8_t>(i % Stride() < inputs ? RandomInt(0, 255) : 0);
    }
    Repack();
  }
  void Repack() {
    const auto packed = PackRows(format, codes, inputs);
    w = Pack({format,
              outputs,
              inputs,
              packed.data(),
              group_rows,
              group_inputs,
              scale.data(),
              offset.empty() ? nullptr : offset.data(),
              table.data(),
              terms,
              {outlier_counts.data(), outlier_columns.data(), outliers.data(), outliers.size()}},
             bias.data());
  }
  // About `percent` of the weights are numbers of their own.
  void AddOutliers(int percent) {
    for (size_t n = 0; n < outputs; ++n) {
      const size_t before = outliers.size();
      for (size_t k = 0; k < inputs; ++k) {
        if (RandomInt(0, 99) >= percent) continue;
        outlier_columns.push_back(static_cast<uint16_t>(k));
        outliers.push_back(RandomFloats(1, 10.0f)[0]);
      }
      outlier_counts.push_back(static_cast<uint16_t>(outliers.size() - before));
    }
    Repack();
  }
  size_t RowGroups() const { return (outputs + group_rows - 1) / group_rows; }
  size_t Groups() const { return (inputs + group_inputs - 1) / group_inputs; }
  size_t Stride() const { return RoundUp(inputs, 64); }

  // The integer of a weight.
  int Weight(size_t n, size_t k, size_t term = 0) const {
    const int code = codes[(term * outputs + n) * inputs + k];
    if (format.scheme == CodeScheme::kBinary) return 2 * code - 1;
    if (format.scheme == CodeScheme::kTernary) return code == 2 ? -1 : code;
    if (format.scheme == CodeScheme::kCodebook) return table[code];
    return code - (1 << (format.bits - 1));
  }
  float Expected(size_t row, size_t n) const {
    if (terms == 2) return ExpectedOfTwoTerms(row, n);
    float total = 0.0f, weight_sum = 0.0f;
    int64_t sum = 0, code_sum = 0;
    size_t at = 0;
    for (size_t g = 0; g < Groups(); ++g) {
      int64_t a_sum = 0, count = 0;
      sum = code_sum = 0;
      for (size_t k = g * group_inputs; k < std::min(inputs, (g + 1) * group_inputs); ++k, ++count) {
        sum += Weight(n, k) * a[row * Stride() + k];
        code_sum += Weight(n, k);
        a_sum += a[row * Stride() + k];
      }
      at = n / group_rows * Groups() + g;
      total = std::fma(static_cast<float>(sum), scale[at], total);
      weight_sum = std::fma(static_cast<float>(code_sum), scale[at], weight_sum);
      if (offset.empty()) continue;
      const float moved = std::fma(static_cast<float>(1 << (format.bits - 1)), scale[at], offset[at]);
      total = std::fma(static_cast<float>(a_sum), moved, total);
      weight_sum = std::fma(static_cast<float>(count), moved, weight_sum);
    }
    size_t i = 0;  // the first outlier of row n
    for (size_t r = 0; r < n && !outliers.empty(); ++r) i += outlier_counts[r];
    for (const size_t end = outliers.empty() ? i : i + outlier_counts[n]; i < end; ++i) {
      const float value = scale[at] * static_cast<float>(Weight(n, outlier_columns[i]));
      const float delta = outliers[i] - value;
      total = std::fma(static_cast<float>(a[row * Stride() + outlier_columns[i]]), delta, total);
      weight_sum += delta;
    }
    if (Groups() > 1 || !offset.empty() || !outliers.empty()) {
      return std::fma(a_scale[row], total, std::fma(a_offset[row], weight_sum, bias[n]));
    }
    const float constant = std::fma(a_offset[row] * scale[at], static_cast<float>(code_sum), bias[n]);
    return std::fma(static_cast<float>(sum), a_scale[row] * scale[at], constant);
  }

  float ExpectedOfTwoTerms(size_t row, size_t n) const {
    float total = 0.0f, weight_sum = 0.0f;
    for (size_t term = 0; term < 2; ++term) {
      int64_t sum = 0, code_sum = 0;
      for (size_t k = 0; k < inputs; ++k) {
        sum += Weight(n, k, term) * a[row * Stride() + k];
        code_sum += Weight(n, k, term);
      }
      const float of_term = scale[term * RowGroups() + n / group_rows];
      total = std::fma(static_cast<float>(sum), of_term, total);
      weight_sum = std::fma(static_cast<float>(code_sum), of_term, weight_sum);
    }
    return std::fma(a_scale[row], total, std::fma(a_offset[row], weight_sum, bias[n]));
  }

  std::vector<float> Run(const Kernels& kernels, size_t panel_begin, size_t panel_end) const {
    std::vector<float> y(rows * outputs, -77.0f);
    kernels.integer_linear(a.data(), Stride(), a_scale.data(), a_offset.data(), rows, w, panel_begin, panel_end,
                           y.data(), outputs);
    return y;
  }
  std::vector<float> Run(const Kernels& kernels) const { return Run(kernels, 0, w.panels); }

  std::string Shape() const {
    return Name(format) + " " + std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs) +
           " groups of " + std::to_string(group_rows) + "x" + std::to_string(group_inputs) + ", terms " +
           std::to_string(terms);
  }
};

void CheckAgainstTheFormulas(const Problem& p) {
  ForEveryIsa([&](const Kernels& kernels) {
    const std::vector<float> y = p.Run(kernels);
    for (size_t i = 0; i < y.size(); ++i) {
      CHECK_MSG(SameBits(y[i], p.Expected(i / p.outputs, i % p.outputs)), p.Shape() + " " + kernels.isa);
    }
  });
}

void CheckAgainstTheReference(const Problem& p) {
  const std::vector<float> expected = p.Run(*KernelsFor("reference"));
  ForEveryFastIsa([&](const Kernels& kernels, const Kernels&) {
    CHECK_MSG(SameBits(p.Run(kernels), expected), p.Shape() + " " + kernels.isa);
  });
}

TEST(EveryFormMatchesTheFormulas) {
  for (const CodeFormat& format : AllFormats()) {
    for (size_t inputs : {1, 31, 32, 33, 96, 127, 128, 129, 200}) {
      CheckAgainstTheFormulas(Problem(format, 3, 21, inputs));
      CheckAgainstTheFormulas(Problem(format, 3, 21, inputs, 1));
      CheckAgainstTheFormulas(Problem(format, 2, 37, inputs, 5));
      for (size_t group : {32, 128}) {
        if (group < inputs) CheckAgainstTheFormulas(Problem(format, 3, 18, inputs, 1, group));
      }
    }
  }
}

// Around the padding of a term (32), the int16 block of 256 and the depth blocks of 384 and 768, at which a term may
// end.
TEST(TwoTermsReadTheSameActivations) {
  for (size_t inputs : {1, 15, 16, 17, 31, 32, 33, 130, 240, 255, 256, 257, 272, 383, 385, 767, 768, 769, 1031}) {
    for (size_t group_rows : {0, 1}) {
      CheckAgainstTheFormulas(Problem(kBinary, 3, 21, inputs, group_rows, 0, 2));
      CheckAgainstTheFormulas(Problem(kBinary, 1, 16, inputs, group_rows, 0, 2));
      for (size_t rows : {2, 6, 7, 13}) CheckAgainstTheReference(Problem(kBinary, rows, 18, inputs, group_rows, 0, 2));
    }
  }
  for (size_t rows : {131, 132, 133}) CheckAgainstTheReference(Problem(kBinary, rows, 5, 77, 1, 0, 2));
  CheckAgainstTheReference(Problem(kBinary, 2, 3, kMaxIntegerInputs, 1, 0, 2));
}

TEST(EveryIsaMatchesTheReference) {
  for (const CodeFormat& format : AllFormats()) {
    // Around the packed block of 16, the int16 block of 256 (ternary) and the depth blocks of 384 and 768.
    for (size_t inputs : {1, 15, 16, 17, 255, 257, 383, 385, 767, 769, 1031}) {
      for (size_t rows : {1, 2, 5, 6, 7}) {
        for (size_t outputs : {1, 16, 33}) CheckAgainstTheReference(Problem(format, rows, outputs, inputs));
      }
    }
    CheckAgainstTheReference(Problem(format, 7, 17, 3081, 1));
    CheckAgainstTheReference(Problem(format, 7, 17, 3081, 1, 128));
    CheckAgainstTheReference(Problem(format, 7, 17, 3081, 1, 1536));
    // A group goes on in the next depth block, or over a whole one.
    CheckAgainstTheReference(Problem(format, 9, 49, 3081, 1, 160));
    CheckAgainstTheReference(Problem(format, 9, 49, 3081, 1, 2048));
    // Tiles of every height; around the row block of 132; 41 groups: fewer rows a sweep where there are offsets.
    for (size_t rows : {8, 9, 10, 11, 12, 13, 131, 132, 133}) {
      CheckAgainstTheReference(Problem(format, rows, 18, 77));
      CheckAgainstTheReference(Problem(format, rows, 5, 41 * 32 - 1, 1, 32));
    }
  }
  CheckAgainstTheReference(Problem({CodeScheme::kUniform, 4, false, false}, 5, 3, kMaxIntegerInputs, 1, 32));
}

// None in a panel half or row, some, all; tiles of every height; outputs that are no whole panel; row and depth blocks.
TEST(OutliersAreAddedInOrderOfTheirInputs) {
  for (unsigned bits : {2, 3, 4}) {
    for (int percent : {1, 30, 100}) {
      for (size_t rows : {1, 2, 5, 9, 10, 11, 21}) {
        for (size_t outputs : {1, 8, 9, 37}) {
          Problem p({CodeScheme::kCodebook, bits, false, false}, rows, outputs, 69, rows % 2);
          p.AddOutliers(percent);
          CheckAgainstTheFormulas(p);
        }
      }
      for (size_t rows : {131, 133}) {
        Problem p({CodeScheme::kCodebook, bits, false, false}, rows, 18, 801);
        p.AddOutliers(percent);
        CheckAgainstTheReference(p);
      }
    }
  }
}

TEST(AnOutlierInTheLastOfTheMostInputsIsFound) {
  Problem p({CodeScheme::kCodebook, 3, false, false}, 3, 2, kMaxIntegerInputs);
  p.outlier_counts = {0, 1};
  p.outlier_columns = {kMaxIntegerInputs - 1};
  p.outliers = {1e6f};
  p.Repack();
  CheckAgainstTheFormulas(p);
}

// Every code the one of the largest magnitude, all activation codes 255: exact, whichever kernel a panel takes.
TEST(ExtremeCodesDoNotSaturate) {
  for (const CodeFormat& format : AllFormats()) {
    for (bool highest : {false, true}) {
      Problem p(format, 7, 17, 4096);
      p.codes.assign(p.codes.size(), highest ? HighestCode(format) : LowestCode(format));
      p.table.assign(p.table.size(), highest ? 127 : -128);
      p.bias.assign(p.outputs, 0.0f);
      p.a.assign(p.a.size(), 255);
      p.a_scale.assign(p.rows, 1.0f);
      p.a_offset.assign(p.rows, 0.0f);
      p.scale.assign(1, 1.0f);
      p.offset.assign(p.offset.size(), -static_cast<float>(1 << (format.bits - 1)));  // value = w
      p.Repack();
      const float expected = 255.0f * 4096.0f * static_cast<float>(p.Weight(0, 0));
      ForEveryIsa([&](const Kernels& kernels) {
        for (float y : p.Run(kernels)) CHECK_MSG(y == expected, p.Shape() + " " + kernels.isa);
      });
    }
  }
  // 8 bits, the longest sums there may be.
  Problem p({CodeScheme::kUniform, 8, false, false}, 2, 3, kMaxIntegerInputs);
  p.codes.assign(p.codes.size(), 255);
  p.a.assign(p.a.size(), 255);
  p.Repack();
  CheckAgainstTheFormulas(p);
}

// Panels of which every weight is +-1, so 64 steps of pairs of 2 make 128, but for one pair of one output. Eight steps
// with it bear 14 besides; a pair above 128 saturates at once.
TEST(StepsFollowFromTheWeightsOfAPanel) {
  constexpr size_t kInputs = 640;
  const CodeFormat format = {CodeScheme::kUniform, 8, false, true};
  const auto steps = [&](int first, int second, size_t at) {
    Problem p(format, 7, 33, kInputs);
    for (size_t i = 0; i < p.codes.size(); ++i) p.codes[i] = 128 + (i % 2 == 0 ? 1 : -1);
    p.codes[17 * kInputs + at] = 128 + first;
    p.codes[17 * kInputs + at + 1] = 128 + second;
    for (uint8_t& q : p.a) q = q != 0 ? 255 : 0;  // 0 past the inputs
    p.Repack();
    CheckAgainstTheFormulas(p);
    CHECK(p.w.int16_steps[0] == 64 && p.w.int16_steps[2] == 64);
    CHECK(p.w.fast_panels() == (p.w.int16_steps[1] == 0 ? 2u : 3u));
    return static_cast<int>(p.w.int16_steps[1]);
  };
  for (size_t at : {size_t{0}, size_t{290}, kInputs - 2}) {
    CHECK(steps(127, 1, at) == 1);
    CHECK(steps(-127, -1, at) == 1);
    CHECK(steps(127, 2, at) == 0);
    CHECK(steps(-127, 127, at) == 0);
    CHECK(steps(57, 58, at) == 1);
    CHECK(steps(57, -57, at) == 8);
  }
  CHECK(steps(32, -32, 290) == 32);  // 64 + 2 * 31 = 126
  CHECK(steps(127, 127, 1) == 1);    // neighbours, but of two pairs, each 127 + 1
}

// Oracle: the definition, over every window of steps that starts where a group or depth block may.
TEST(NoWindowOfStepsPassesTheLimit) {
  for (const CodeFormat& format : AllFormats()) {
    for (int divisor : {1, 5, 40}) {
      Problem p(format, 1, 16, 700);
      for (int8_t& t : p.table) t = static_cast<int8_t>(t / divisor);
      p.Repack();
      const int steps = p.w.int16_steps[0];
      int longest = 0;
      for (size_t n = 0; n < 16; ++n) {
        for (size_t lane = 0; lane < 2; ++lane) {
          for (size_t begin = 0; begin < p.inputs; begin += 32) {
            int sum = 0;
            for (size_t k = begin; k < std::min(p.inputs, begin + 4 * steps); k += 4) {
              sum += std::abs(p.Weight(n, k + 2 * lane)) + std::abs(p.Weight(n, k + 2 * lane + 1));
            }
            longest = std::max(longest, sum);
          }
        }
      }
      CHECK_MSG(longest <= 128, p.Shape());
    }
  }
}

TEST(OnlyTheGivenPanelsAreWritten) {
  ForEveryIsa([](const Kernels& kernels) {
    const Problem p({CodeScheme::kUniform, 4, false, true}, 4, 50, 31);
    const std::vector<float> all = p.Run(kernels), some = p.Run(kernels, 1, 3), none = p.Run(kernels, 2, 2);
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t n = i % p.outputs;
      CHECK(SameBits(some[i], n >= 16 && n < 48 ? all[i] : -77.0f));
      CHECK(none[i] == -77.0f);
    }
  });
}

TEST(AnInvalidRowIsNamed) {
  const CodeFormat format = {CodeScheme::kUniform, 3, false, true};
  auto codes = RandomCodes(format, 20 * 9);
  codes[18 * 9 + 4] = 0;
  const auto packed = PackRows(format, codes, 9);
  const float scale = 1.0f;
  const PackedWeights weights = {format, 20, 9, packed.data(), 20, 9, &scale, nullptr, nullptr};
  IntegerMatrix m = MakeIntegerMatrix(weights, nullptr);
  std::vector<uint8_t> scratch(PackScratchBytes(m));
  CHECK(PackPanel(weights, 0, scratch.data(), &m) == 20);
  CHECK(PackPanel(weights, 1, scratch.data(), &m) == 18);
}

TEST(NoBiasIsZeroBiasAndTheSizesAreThoseOfTheBits) {
  const float scale = 1.0f;
  for (const CodeFormat& format : AllFormats()) {
    const auto packed = PackRows(format, std::vector<int>(3 * 5, HighestCode(format)), 5);
    const std::vector<int8_t> table(16, 3);
    const std::vector<float> offset(1, 0.5f);
    const bool has_offset = format.scheme == CodeScheme::kUniform && !format.symmetric;
    const IntegerMatrix w =
        Pack({format, 3, 5, packed.data(), 3, 5, &scale, has_offset ? offset.data() : nullptr, table.data()}, nullptr);
    CHECK(w.panels == 1 && w.padded_inputs == 16 && w.panel_bytes == 32 * std::max(2u, format.bits));
    CHECK(w.code_sum.size() == 16 && w.code_sum[3] == 0 && w.scale[2] == 1.0f && w.scale[3] == 0.0f);
    for (float b : w.bias) CHECK(b == 0.0f);
  }
}

}  // namespace
}  // namespace bitpress::test
