// From canonical rows to panels, in one pass over the codes: unpacked to bytes in L1 or L2, checked, summed, packed
// again.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/integer_linear/layout.h"

namespace bitpress {
namespace {

// Bytes 4i to 4i + 3 of vector v of a block (layout.h): column i, or 8 + i, of four inputs for each register in it.
// codes: 16 rows of one code a byte. Fields of a byte never run into the next one.
template <unsigned Bits>
uint32_t WordOfVector(const uint8_t* codes, size_t stride, size_t v, size_t i) {
  const auto of_register = [&](size_t r) {
    uint32_t word;
    std::memcpy(&word, codes + (r % 2 * 8 + i) * stride + r / 2 * kPanelDepth, sizeof(word));
    return word;
  };
  if constexpr (Bits == 8) {
    return of_register(v);
  } else if constexpr (Bits == 4) {
    return of_register(2 * v) | of_register(2 * v + 1) << 4;
  } else {
    uint32_t word = 0;
    if (v < 2) {
      for (size_t r = 0; r < 4; ++r) word |= (of_register(4 * v + r) & 0x03030303) << 2 * r;
    } else {
      for (size_t r = 0; r < 8; ++r) word |= (of_register(r) >> 2 & 0x01010101) << r;
    }
    return word;
  }
}

template <unsigned Bits>
void PackBlocks(const uint8_t* codes, size_t padded_inputs, uint8_t* panel) {
  for (size_t k = 0; k < padded_inputs; k += kBlockInputs) {
    for (size_t v = 0; v < Bits; ++v) {
      for (size_t i = 0; i < 8; ++i, panel += sizeof(uint32_t)) {
        const uint32_t word = WordOfVector<Bits>(codes + k, padded_inputs, v, i);
        std::memcpy(panel, &word, sizeof(word));
      }
    }
  }
}

// The integer that each of cols codes stands for.
void ToIntegers(const CodeFormat& format, const int8_t* table, const uint8_t* codes, size_t cols, int8_t* integers) {
  switch (format.scheme) {
    case CodeScheme::kTernary:  // two bits of two's complement
      for (size_t j = 0; j < cols; ++j) integers[j] = static_cast<int8_t>((codes[j] ^ 2) - 2);
      break;
    case CodeScheme::kUniform: {
      const int center = 1 << (format.bits - 1);
      for (size_t j = 0; j < cols; ++j) integers[j] = static_cast<int8_t>(codes[j] - center);
      break;
    }
    case CodeScheme::kCodebook:
      for (size_t j = 0; j < cols; ++j) integers[j] = table[codes[j]];
      break;
    case CodeScheme::kBinary:
      for (size_t j = 0; j < cols; ++j) integers[j] = static_cast<int8_t>(2 * codes[j] - 1);
      break;
  }
}

void Magnitudes(const int8_t* integers, size_t count, uint8_t* magnitudes) {
  for (size_t j = 0; j < count; ++j) magnitudes[j] = static_cast<uint8_t>(std::abs(integers[j]));
}

int32_t Sum(const int8_t* integers, size_t count) {
  int32_t sum = 0;
  for (size_t j = 0; j < count; ++j) sum += integers[j];
  return sum;
}

// How many steps an int16 lane can take in a panel. In every step, lane j of a column adds the products of inputs 2j
// and 2j + 1 of four, at most 255 (|w| + |w'|). So it holds any steps whose pairs |w| + |w'| sum up to at most
// kLaneLimit; `vpmaddubsw` itself saturates only where a single pair is larger.
//
// Steps are counted in runs, at whose borders every term, group and depth block of a kernel starts: so many runs in a
// row that any as many keep the limit, 64 steps for ternary and binary weights at least, 8 for 4-bit ones of the
// largest magnitude, but about twice that for weights as they are. Where a single run does not, the largest pair
// decides: 1 to 7 steps, or none.
constexpr size_t kLaneLimit = 128;
static_assert(255 * kLaneLimit <= 32767, "int16 holds the limit");
constexpr size_t kRunInputs = kGroupGranularity, kRunSteps = kRunInputs / kPanelDepth, kMostRuns = 31;
static_assert(kRunSteps * kMostRuns <= 255, "IntegerMatrix::int16_steps holds it");

// Per run and lane the sum of the pairs. magnitudes: |w|, padded with zeros to whole runs. Four pairs at a time, as the
// 16-bit fields of a word: two of lane 0 (fields 0 and 2), two of lane 1.
void LoadRuns(const uint8_t* magnitudes, size_t runs, uint16_t* loads) {
  constexpr uint64_t kLowBytes = 0x00ff00ff00ff00ff;
  for (size_t run = 0; run < runs; ++run, magnitudes += kRunInputs) {
    uint64_t fields = 0;  // each at most 4 * 256
    for (size_t i = 0; i < kRunInputs; i += sizeof(fields)) {
      uint64_t word;
      std::memcpy(&word, magnitudes + i, sizeof(word));
      fields += (word & kLowBytes) + (word >> 8 & kLowBytes);
    }
    const uint64_t lanes = fields + (fields >> 32);
    loads[2 * run] = static_cast<uint16_t>(lanes);
    loads[2 * run + 1] = static_cast<uint16_t>(lanes >> 16);
  }
}

size_t LargestPair(const uint8_t* magnitudes, size_t count) {
  int16_t largest = 0;
  for (size_t j = 0; j < count; j += 2) {
    largest = std::max(largest, static_cast<int16_t>(magnitudes[j] + magnitudes[j + 1]));
  }
  return static_cast<size_t>(largest);
}

// `steps` or, where an output of these weights bears fewer, those. loads: room for two numbers a run.
size_t LimitSteps(const uint8_t* magnitudes, size_t runs, uint16_t* loads, size_t steps) {
  LoadRuns(magnitudes, runs, loads);
  for (size_t lane = 0; lane < 2; ++lane) {
    size_t total = 0;  // of the runs first to last
    for (size_t first = 0, last = 0; last < runs; ++last) {
      if (loads[2 * last + lane] > kLaneLimit) {
        return std::min(steps, kLaneLimit / LargestPair(magnitudes, runs * kRunInputs));
      }
      total += loads[2 * last + lane];
      if ((last - first) * kRunSteps >= steps) total -= loads[2 * first++ + lane];
      for (; total > kLaneLimit; steps = std::min(steps, (last + 1 - first) * kRunSteps)) {
        total -= loads[2 * first++ + lane];
      }
    }
  }
  return steps;
}

// Where the scale of output n in group g lies: the groups of a row one after another, but a term after the other.
size_t ScaleOf(const PackedWeights& weights, size_t groups, size_t n, size_t g) {
  const size_t group_of_rows = n / weights.group_rows;
  if (weights.terms == 1) return group_of_rows * groups + g;
  return g * ((weights.outputs + weights.group_rows - 1) / weights.group_rows) + group_of_rows;
}

// The stored numbers in the order of the kernels; PackPanel makes deltas of them.
void PlaceOutliers(const OutlierList& list, IntegerMatrix* m) {
  if (list.count == 0) return;
  m->outliers.reserve(list.count);
  m->outlier_begin.reserve(m->panels * kPanelHalves + 1);
  size_t i = 0, n = 0;
  for (size_t half = 0; half < m->panels * kPanelHalves; ++half) {
    m->outlier_begin.push_back(i);
    for (const size_t end = std::min(m->outputs, (half + 1) * kOutlierColumns); n < end; ++n) {
      for (const size_t row_end = i + list.counts[n]; i < row_end; ++i) {
        m->outliers.push_back({list.columns[i], static_cast<uint16_t>(n % kOutlierColumns), list.values[i]});
      }
    }
    std::sort(m->outliers.begin() + static_cast<std::ptrdiff_t>(m->outlier_begin.back()), m->outliers.end(),
              [](const Outlier& a, const Outlier& b) {
                return a.input != b.input ? a.input < b.input : a.column < b.column;
              });
  }
  m->outlier_begin.push_back(i);
}

// codes: of a panel, one a byte.
void SetDeltas(const uint8_t* codes, size_t panel, IntegerMatrix* m) {
  if (m->outliers.empty()) return;
  for (size_t half = 0; half < kPanelHalves; ++half) {
    const size_t* range = &m->outlier_begin[panel * kPanelHalves + half];
    for (size_t i = range[0]; i < range[1]; ++i) {
      Outlier& o = m->outliers[i];
      const size_t c = half * kOutlierColumns + o.column, n = panel * kPanelColumns + c;
      // A codebook has one group along the inputs.
      o.delta -= static_cast<float>(m->table[codes[c * m->padded_inputs + o.input]]) * m->scale[n];
      m->weight_sum[n] += o.delta;
    }
  }
}

}  // namespace

size_t IntegerMatrix::fast_panels() const {
  return panels - static_cast<size_t>(std::count(int16_steps.begin(), int16_steps.end(), 0));
}

IntegerMatrix MakeIntegerMatrix(const PackedWeights& weights, const float* bias) {
  const CodeFormat& format = weights.format;
  IntegerMatrix m;
  m.outputs = weights.outputs;
  m.inputs = weights.inputs;
  m.panels = RoundUp(m.outputs, kPanelColumns) / kPanelColumns;
  m.term_inputs = RoundUp(m.inputs, weights.terms == 1 ? kBlockInputs : kRunInputs);
  m.padded_inputs = weights.terms * m.term_inputs;
  m.bits = std::max(format.bits, 2u);
  m.panel_bytes = m.padded_inputs / kBlockInputs * BlockBytes(m.bits);
  if (m.bits < 8) {
    uint8_t codes[16];
    for (uint8_t i = 0; i < 16; ++i) codes[i] = i;
    ToIntegers(format, weights.table, codes, size_t{1} << format.bits, m.table);
  }
  const size_t groups_of_a_term = (m.inputs + weights.group_inputs - 1) / weights.group_inputs;
  m.groups = weights.terms * groups_of_a_term;
  m.group_inputs = groups_of_a_term == 1 ? m.term_inputs : weights.group_inputs;
  m.packed = AllocateOnCacheLine(m.panels * m.panel_bytes);
  m.scale.resize(m.panels * m.groups * kPanelColumns);
  if (weights.offset != nullptr) m.offset.resize(m.scale.size());
  m.code_sum.resize(m.panels * kPanelColumns);
  m.weight_sum.resize(m.panels * kPanelColumns);
  m.bias.resize(m.panels * kPanelColumns);
  if (bias != nullptr) std::copy(bias, bias + m.outputs, m.bias.begin());
  m.int16_steps.resize(m.panels);
  PlaceOutliers(weights.outliers, &m);
  return m;
}

// The codes of a panel; of one row the integers, their magnitudes and the loads of its runs.
size_t PackScratchBytes(const IntegerMatrix& matrix) {
  const size_t run_inputs = RoundUp(matrix.padded_inputs, kRunInputs);
  return kPanelColumns * matrix.padded_inputs + 2 * run_inputs + run_inputs / kRunInputs * 2 * sizeof(uint16_t);
}

size_t PackPanel(const PackedWeights& weights, size_t panel, uint8_t* scratch, IntegerMatrix* matrix) {
  IntegerMatrix& m = *matrix;
  const size_t row_bytes = PackedRowBytes(weights.format, m.inputs), first = panel * kPanelColumns;
  auto* integers = reinterpret_cast<int8_t*>(scratch + kPanelColumns * m.padded_inputs);
  // Padding counts as zero in the sums; in the panel it is code 0, whatever that stands for: its activation codes are
  // zero, and outputs past the last are not written.
  std::memset(scratch, 0, PackScratchBytes(m));
  const size_t run_inputs = RoundUp(m.padded_inputs, kRunInputs);
  uint8_t* magnitudes = scratch + kPanelColumns * m.padded_inputs + run_inputs;
  auto* loads = reinterpret_cast<uint16_t*>(magnitudes + run_inputs);
  const auto center = static_cast<float>(1 << (m.bits - 1));
  size_t steps = kMostRuns * kRunSteps;
  for (size_t c = 0; c < kPanelColumns && first + c < m.outputs; ++c) {
    const size_t n = first + c;
    uint8_t* codes = scratch + c * m.padded_inputs;
    for (size_t term = 0; term < weights.terms; ++term) {
      const size_t begin = term * m.term_inputs;
      const uint8_t* row = weights.codes + (term * m.outputs + n) * row_bytes;
      if (!UnpackCodes(weights.format, row, m.inputs, codes + begin)) return n;
      ToIntegers(weights.format, weights.table, codes + begin, m.inputs, integers + begin);
    }
    if (m.bits == 8) std::memcpy(codes, integers, m.inputs);
    Magnitudes(integers, m.padded_inputs, magnitudes);
    steps = LimitSteps(magnitudes, run_inputs / kRunInputs, loads, steps);
    float weight_sum = 0.0f;
    for (size_t g = 0; g < m.groups; ++g) {
      const size_t begin = g * m.group_inputs, count = std::min(m.group_inputs, m.inputs - begin % m.term_inputs);
      const size_t at = (panel * m.groups + g) * kPanelColumns + c;
      const size_t source = ScaleOf(weights, m.groups, n, g);
      const int32_t sum = Sum(integers + begin, count);
      m.code_sum[n] += sum;
      m.scale[at] = weights.scale[source];
      weight_sum = std::fma(static_cast<float>(sum), m.scale[at], weight_sum);
      if (m.offset.empty()) continue;
      m.offset[at] = std::fma(center, m.scale[at], weights.offset[source]);
      weight_sum = std::fma(static_cast<float>(count), m.offset[at], weight_sum);
    }
    m.weight_sum[n] = weight_sum;
  }
  SetDeltas(scratch, panel, &m);
  m.int16_steps[panel] = static_cast<uint8_t>(steps);
  uint8_t* packed = m.packed.get() + panel * m.panel_bytes;
  switch (m.bits) {
    case 2:
      PackBlocks<2>(scratch, m.padded_inputs, packed);
      break;
    case 3:
      PackBlocks<3>(scratch, m.padded_inputs, packed);
      break;
    case 4:
      PackBlocks<4>(scratch, m.padded_inputs, packed);
      break;
    default:
      PackBlocks<8>(scratch, m.padded_inputs, packed);
  }
  return m.outputs;
}

}  // namespace bitpress
