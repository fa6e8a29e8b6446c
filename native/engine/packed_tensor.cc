#include "engine/packed_tensor.h"

#include <cmath>
#include <limits>

#include "engine/error.h"

namespace bitpress {
namespace {

[[noreturn]] void RefuseTensor(const char* name, const std::string& why) {
  Refuse("tensor " + Quoted(name) + ": " + why);
}

CodeFormat CheckFormat(const char* name, const bp_packed& t) {
  if (t.scheme > BP_BINARY) {
    RefuseTensor(name, "scheme is " + std::to_string(t.scheme) +
                           ", allowed are 0 (ternary), 1 (uniform), 2 (codebook) and 3 (binary)");
  }
  if (t.packing > BP_PACK_TRITS) {
    RefuseTensor(name, "packing is " + std::to_string(t.packing) + ", allowed are 0 (bits) and 1 (trits)");
  }
  if (t.packing == BP_PACK_TRITS && t.scheme != BP_TERNARY)
    RefuseTensor(name, "only ternary codes are packed as trits");
  const char* const allowed[] = {"2 for ternary", "2, 3, 4 and 8 for uniform", "2, 3 and 4 for codebook",
                                 "1 for binary"};
  const bool fits = t.scheme == BP_TERNARY   ? t.bits == 2
                    : t.scheme == BP_BINARY  ? t.bits == 1
                    : t.scheme == BP_UNIFORM ? t.bits == 8 || (t.bits >= 2 && t.bits <= 4)
                                             : t.bits >= 2 && t.bits <= 4;
  if (!fits) {
    RefuseTensor(name, "bits is " + std::to_string(t.bits) + ", allowed are " + allowed[t.scheme] + " codes");
  }
  const uint32_t most_terms = t.scheme == BP_BINARY ? 2 : 1;
  if (t.terms < 1 || t.terms > most_terms) {
    RefuseTensor(name, "terms is " + std::to_string(t.terms) + ", allowed is 1, and 2 for binary codes");
  }
  const bool symmetric = t.scheme == BP_UNIFORM && t.offset == nullptr;
  return {static_cast<CodeScheme>(t.scheme), t.bits, t.packing == BP_PACK_TRITS, symmetric};
}
static_assert(static_cast<int>(CodeScheme::kTernary) == BP_TERNARY &&
                  static_cast<int>(CodeScheme::kUniform) == BP_UNIFORM &&
                  static_cast<int>(CodeScheme::kCodebook) == BP_CODEBOOK &&
                  static_cast<int>(CodeScheme::kBinary) == BP_BINARY,
              "the schemes of the ABI are those of the kernels");

void CheckCount(const char* name, const char* what, size_t found, size_t expected) {
  if (found == expected) return;
  RefuseTensor(name, "it has " + std::to_string(found) + " " + what + ", expected " + std::to_string(expected));
}

void CheckNumbers(const char* name, const char* what, const float* values, size_t count, bool positive) {
  for (size_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i]) && (!positive || values[i] > 0.0f)) continue;
    RefuseTensor(name, std::string(what) + " " + std::to_string(i) + " is " + std::to_string(values[i]) +
                           ", must be finite" + (positive ? " and positive" : ""));
  }
}

// The outliers of a codebook, whose places every row must have, once and in order.
OutlierList CheckOutliers(const char* name, const bp_packed& t) {
  const OutlierList list = {t.outlier_counts, t.outlier_columns, t.outliers, t.outlier_count};
  const bool none = list.counts == nullptr && list.columns == nullptr && list.values == nullptr && list.count == 0;
  if (none) return {};
  if (t.scheme != BP_CODEBOOK) RefuseTensor(name, "only codebook weights have outliers");
  if (list.counts == nullptr || list.columns == nullptr || list.values == nullptr || list.count == 0) {
    RefuseTensor(name, "outliers need counts, columns and values, or none of them");
  }
  size_t total = 0;
  for (size_t row = 0; row < t.rows; ++row) total += list.counts[row];
  CheckCount(name, "outliers", list.count, total);
  CheckNumbers(name, "outlier", list.values, list.count, false);
  for (size_t row = 0, i = 0; row < t.rows; ++row) {
    size_t least = 0;  // that the next column may be
    for (const size_t end = i + list.counts[row]; i < end; ++i) {
      if (list.columns[i] < least || list.columns[i] >= t.cols) {
        RefuseTensor(name, "outlier " + std::to_string(i) + " is in column " + std::to_string(list.columns[i]) +
                               " of row " + std::to_string(row) + ", allowed are " + std::to_string(least) + " to " +
                               std::to_string(t.cols - 1));
      }
      if (std::fabs(list.values[i]) > std::numeric_limits<float>::max() / 2) {
        RefuseTensor(name, "outlier " + std::to_string(i) + " is above half of the largest float in size");
      }
      least = list.columns[i] + size_t{1};
    }
  }
  return list;
}

}  // namespace

std::string Quoted(const char* name) {
  constexpr size_t kLongest = 120;
  std::string text(name);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return "'" + text + "'";
}

std::string Codes(const CodeFormat& format) {
  if (format.trits) return "base-3 ternary codes";
  const std::string bits = std::to_string(format.bits) + "-bit ";
  if (format.scheme == CodeScheme::kTernary) return bits + "ternary codes";
  if (format.scheme == CodeScheme::kBinary) return bits + "codes, with zeros past the last";
  return bits + (format.symmetric ? "symmetric codes" : "codes");
}

size_t Groups(const PackedWeights& w) {
  return w.terms * ((w.outputs + w.group_rows - 1) / w.group_rows) * ((w.inputs + w.group_inputs - 1) / w.group_inputs);
}

PackedWeights CheckPacked(const char* name, const bp_packed& t) {
  PackedWeights w;
  w.format = CheckFormat(name, t);
  w.outputs = t.rows;
  w.inputs = t.cols;
  w.codes = t.codes;
  w.group_rows = t.group_rows == 0 ? t.rows : t.group_rows;
  w.group_inputs = t.group_cols == 0 ? t.cols : t.group_cols;
  w.scale = t.scale;
  w.offset = t.offset;
  w.table = t.table;
  w.terms = t.terms;
  const bool whole_rows = w.group_inputs == w.inputs;
  if (w.group_rows > w.outputs ||
      (!whole_rows && (w.group_inputs > w.inputs || w.group_rows != 1 || w.group_inputs % kGroupGranularity != 0))) {
    RefuseTensor(name, "groups of " + std::to_string(w.group_rows) + " rows x " + std::to_string(w.group_inputs) +
                           " columns, allowed are whole rows, or one row and a multiple of " +
                           std::to_string(kGroupGranularity) + " columns");
  }
  if (t.scheme != BP_UNIFORM) {
    if (!whole_rows || (w.group_rows != 1 && w.group_rows != w.outputs)) {
      RefuseTensor(name, "ternary, codebook and binary weights have one scale a matrix or a row");
    }
    if (t.offset != nullptr) RefuseTensor(name, "only uniform codes have offsets");
  }
  const size_t groups = Groups(w);
  CheckCount(name, "scales", t.scale_count, groups);
  CheckCount(name, "offsets", t.offset_count, t.offset == nullptr ? 0 : groups);
  const bool has_table = t.scheme == BP_CODEBOOK;
  CheckCount(name, "table entries", t.table == nullptr ? 0 : t.table_count, has_table ? size_t{1} << t.bits : 0);
  CheckNumbers(name, "scale", t.scale, groups, true);
  if (t.offset != nullptr) CheckNumbers(name, "offset", t.offset, groups, false);
  w.outliers = CheckOutliers(name, t);
  return w;
}

}  // namespace bitpress
