#include "engine/model.h"

#include <algorithm>
#include <cmath>

#include "engine/config.h"
#include "engine/error.h"
#include "engine/fold_bits.h"
#include "engine/packed_tensor.h"
#include "engine/thread_pool.h"

namespace bitpress {
namespace {

// Products of these scales, with dot products and contexts below 2^16, then stay far inside fp32.
constexpr float kMaxElasticScale = 0x1p32f;
// Products with scales of weights are bounded themselves: 2^16 times that is finite.
constexpr float kMaxDotScale = 0x1p111f;

std::string Shape(size_t rows, size_t cols) { return std::to_string(rows) + " x " + std::to_string(cols); }

// Small tensors are not worth waking other threads for: this many weights take about 0.1 ms.
size_t LoadingThreads(const PackedWeights& weights) {
  constexpr size_t kWorthSharing = 1 << 18;
  return weights.outputs * weights.inputs < kWorthSharing ? 1 : 0;
}

[[noreturn]] void RefuseRow(const char* name, const CodeFormat& format, size_t row) {
  Refuse("tensor " + Quoted(name) + ": row " + std::to_string(row) + " holds bytes that are no " + Codes(format));
}

// Calls body(first row, thread) for every `step` rows, which returns the first invalid row it finds or `rows`.
template <typename Body>
void RefuseInvalidRows(const char* name, const CodeFormat& format, ThreadTeam& team, size_t rows, size_t step,
                       const Body& body) {
  std::vector<size_t> invalid((rows + step - 1) / step);
  team.ParallelFor(invalid.size(), [&](size_t task, size_t thread) { invalid[task] = body(task * step, thread); });
  for (const size_t row : invalid) {
    if (row < rows) RefuseRow(name, format, row);
  }
}

}  // namespace

const Linear& FindLinear(const Model& model, const char* weight) {
  const auto found = model.linears.find(weight);
  if (found == model.linears.end()) Refuse("tensor " + Quoted(weight) + ": unknown name of a linear weight");
  return *found->second;
}

ModelBuilder::ModelBuilder(const bp_config& config, const Kernels* kernels, Model* model) : model_(*model) {
  CheckConfig(config);
  model_.config = config;
  model_.kernels = kernels;
  model_.activation = ActivationOf(config.hidden_act);
  model_.head_activation = HeadActivationOf(config.head);
  model_.uint8_attention = config.activation_range == BP_UINT8_TOKEN || config.activation_range == BP_UINT8_STATIC;
  model_.layers.resize(config.num_layers);
  const size_t hidden = config.hidden_size, attention = model_.attention_size();
  const size_t embedding = config.embedding_size, intermediate = config.intermediate_size;

  Embeddings& e = model_.embeddings;
  AddTensor("embeddings.word.weight", Kind::kWordEmbedding, config.vocab_size, embedding, nullptr, &e.word);
  AddTensor("embeddings.position.weight", Kind::kFloats, config.max_positions, embedding, nullptr, &e.position);
  AddTensor("embeddings.token_type.weight", Kind::kFloats, config.type_vocab_size, embedding, nullptr, &e.token_type);
  AddNorm("embeddings.norm", embedding, &e.norm);
  if (model_.projects_embeddings()) AddFloatLinear("embeddings.projection", hidden, embedding, &e.projection);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    Layer& layer = model_.layers[i];
    AddLinear(name + ".attention.query", attention, hidden, &layer.query);
    AddLinear(name + ".attention.key", attention, hidden, &layer.key);
    AddLinear(name + ".attention.value", attention, hidden, &layer.value);
    AddLinear(name + ".attention.output", hidden, attention, &layer.attention_output);
    AddNorm(name + ".attention.norm", hidden, &layer.attention_norm);
    AddLinear(name + ".ffn.intermediate", intermediate, hidden, &layer.intermediate);
    AddLinear(name + ".ffn.output", hidden, intermediate, &layer.ffn_output);
    AddNorm(name + ".ffn.norm", hidden, &layer.ffn_norm);
    AddPoint(name + ".attention.input", &layer.attention_input);
    AddAttentionPoint(name + ".attention.query_states", &layer.attention.query);
    AddAttentionPoint(name + ".attention.key_states", &layer.attention.key);
    AddAttentionPoint(name + ".attention.probabilities", &layer.attention.probabilities);
    AddAttentionPoint(name + ".attention.value_states", &layer.attention.value);
    layer.attention.probabilities.nonnegative = true;
    layer.attention.probabilities.clip = 0.0f;  // probabilities are never clipped
    AddPoint(name + ".attention.context", &layer.context);
    AddPoint(name + ".ffn.input", &layer.ffn_input);
    AddPoint(name + ".ffn.activation", &layer.ffn_activation);
    if (!model_.is_elastic()) continue;
    AddScale(name + ".attention.query_states.scale", &layer.states.query);
    AddScale(name + ".attention.key_states.scale", &layer.states.key);
    AddScale(name + ".attention.value_states.scale", &layer.states.value);
    AddScale(name + ".attention.probabilities.scale", &layer.states.probabilities);
  }
  if (model_.has_pooler()) {
    AddPoint("pooler.input", &model_.pooler_input);
    AddLinear("pooler.dense", hidden, hidden, &model_.pooler);
  }
  if (model_.has_classifier()) AddFloatLinear("classifier", config.num_labels, hidden, &model_.classifier);
}

void ModelBuilder::AddTensor(const std::string& name, Kind kind, size_t rows, size_t cols, Linear* linear,
                             std::vector<float>* floats) {
  tensor_index_.emplace(name, tensors_.size());
  tensors_.push_back({name, kind, rows, cols, linear, floats, nullptr, {}, false});
}

void ModelBuilder::AddLinear(const std::string& name, size_t outputs, size_t inputs, Linear* linear) {
  AddTensor(name + ".weight", Kind::kLinearWeight, outputs, inputs, linear, nullptr);
  model_.linears.emplace(name + ".weight", linear);
  AddTensor(name + ".bias", Kind::kLinearBias, 1, outputs, linear, nullptr);
  if (!model_.is_elastic()) return;
  AddScale(name + ".input.scale", &linear->input_scale);
  AddTensor(name + ".input.shift", Kind::kShift, 1, inputs, nullptr, &linear->input_shift);
}

void ModelBuilder::AddScale(const std::string& name, float* scale) {
  AddTensor(name, Kind::kScale, 1, 1, nullptr, nullptr);
  tensors_.back().scale = scale;
}

// One whose weights are fp32 whatever the activations are.
void ModelBuilder::AddFloatLinear(const std::string& name, size_t outputs, size_t inputs, Linear* linear) {
  AddTensor(name + ".weight", Kind::kFloatLinearWeight, outputs, inputs, linear, nullptr);
  AddTensor(name + ".bias", Kind::kLinearBias, 1, outputs, linear, nullptr);
}

void ModelBuilder::AddNorm(const std::string& name, size_t size, Norm* norm) {
  AddTensor(name + ".weight", Kind::kFloats, 1, size, nullptr, &norm->weight);
  AddTensor(name + ".bias", Kind::kFloats, 1, size, nullptr, &norm->bias);
}

void ModelBuilder::AddPoint(const std::string& name, InputPoint* point) {
  AddAttentionPoint(name, &point->spec);
  ranges_.back().point = point;
}

void ModelBuilder::AddAttentionPoint(const std::string& name, QuantizeSpec* spec) {
  if (model_.uint8_attention) spec->bits = model_.config.activation_bits;
  spec->symmetric = model_.config.activation_symmetric != 0;
  spec->is_static = model_.config.activation_range == BP_UINT8_STATIC;
  spec->clip = model_.config.activation_clip;
  range_index_.emplace(name, ranges_.size());
  ranges_.push_back({name, spec, nullptr, false});
}

ModelBuilder::Tensor& ModelBuilder::Expect(const char* name, size_t rows, size_t cols) {
  const auto found = tensor_index_.find(name);
  if (found == tensor_index_.end()) {
    Refuse("tensor " + Quoted(name) + ": unknown name; a model of " + std::to_string(model_.layers.size()) +
           " layers has none of that name");
  }
  Tensor& tensor = tensors_[found->second];
  if (tensor.given) Refuse("tensor " + Quoted(name) + ": given twice");
  if (rows != tensor.rows || cols != tensor.cols) {
    Refuse("tensor " + Quoted(name) + ": the shape is " + Shape(rows, cols) + ", expected " +
           Shape(tensor.rows, tensor.cols));
  }
  return tensor;
}

void ModelBuilder::SetFloat(const char* name, const float* data, size_t rows, size_t cols) {
  Tensor& tensor = Expect(name, rows, cols);
  switch (tensor.kind) {
    case Kind::kWordEmbedding:
    case Kind::kFloats:
      tensor.floats->assign(data, data + rows * cols);
      break;
    case Kind::kLinearBias:
      tensor.bias.assign(data, data + cols);
      break;
    case Kind::kScale:
      if (!(*data > 0.0f && *data <= kMaxElasticScale)) {
        Refuse("tensor " + Quoted(name) + ": it is " + std::to_string(*data) + ", must be above 0 and at most 2^32");
      }
      *tensor.scale = *data;
      break;
    case Kind::kShift:
      for (size_t i = 0; i < cols; ++i) {
        if (std::isfinite(data[i])) continue;
        Refuse("tensor " + Quoted(name) + ": value " + std::to_string(i) + " is " + std::to_string(data[i]) +
               ", must be finite");
      }
      tensor.floats->assign(data, data + cols);
      break;
    case Kind::kLinearWeight:
      if (model_.is_binary()) {
        Refuse("tensor " + Quoted(name) + ": given as fp32, 1-bit activations need binary weights");
      }
      [[fallthrough]];
    case Kind::kFloatLinearWeight:
      tensor.linear->outputs = rows;
      tensor.linear->inputs = cols;
      tensor.linear->dense = PackFloat(data, rows, cols, std::vector<float>(rows).data());
      break;
  }
  tensor.given = true;
}

void ModelBuilder::SetPacked(const char* name, const bp_packed& packed) {
  Tensor& tensor = Expect(name, packed.rows, packed.cols);
  const bool is_word = tensor.kind == Kind::kWordEmbedding;
  if (!is_word && tensor.kind != Kind::kLinearWeight) Refuse("tensor " + Quoted(name) + ": given packed, must be fp32");
  if (!is_word && model_.config.activation_range == BP_FLOAT) {
    Refuse("tensor " + Quoted(name) + ": packed linear weights need uint8 activations, the model has fp32 ones");
  }
  const PackedWeights weights = CheckPacked(name, packed);
  const bool is_binary = weights.format.scheme == CodeScheme::kBinary;
  if (!is_word && model_.is_binary() && (!is_binary || weights.terms != 1)) {
    Refuse("tensor " + Quoted(name) + ": 1-bit activations need binary weights of one term");
  }
  if (is_word) {
    SetPackedWord(name, weights);
  } else if (model_.is_binary()) {
    SetBinaryLinear(name, weights, tensor.linear);
  } else {
    SetPackedLinear(name, weights, tensor.linear);
  }
  tensor.given = true;
}

void ModelBuilder::SetPackedWord(const char* name, const PackedWeights& weights) {
  constexpr size_t kRowsPerTask = 64;
  ThreadTeam team(LoadingThreads(weights));
  std::vector<uint8_t> codes(team.size() * weights.inputs);
  const size_t row_bytes = PackedRowBytes(weights.format, weights.inputs);
  RefuseInvalidRows(name, weights.format, team, weights.outputs, kRowsPerTask, [&](size_t begin, size_t thread) {
    const size_t end = std::min(weights.outputs, begin + kRowsPerTask);
    uint8_t* scratch = codes.data() + thread * weights.inputs;
    for (size_t r = begin; r < end; ++r) {
      for (size_t term = 0; term < weights.terms; ++term) {
        const uint8_t* row = weights.codes + (term * weights.outputs + r) * row_bytes;
        if (!UnpackCodes(weights.format, row, weights.inputs, scratch)) return r;
      }
    }
    return weights.outputs;
  });
  Embeddings& e = model_.embeddings;
  const size_t groups = Groups(weights);
  e.word_packed = weights;
  e.word_scale.assign(weights.scale, weights.scale + groups);
  if (weights.offset != nullptr) e.word_offset.assign(weights.offset, weights.offset + groups);
  if (weights.table != nullptr) std::copy_n(weights.table, size_t{1} << weights.format.bits, e.word_table);
  const OutlierList& outliers = weights.outliers;
  if (outliers.count > 0) {
    e.word_outlier_begin.assign(1, 0);
    e.word_outlier_begin.reserve(weights.outputs + 1);
    for (size_t r = 0; r < weights.outputs; ++r) {
      e.word_outlier_begin.push_back(e.word_outlier_begin.back() + outliers.counts[r]);
    }
    e.word_outlier_columns.assign(outliers.columns, outliers.columns + outliers.count);
    e.word_outliers.assign(outliers.values, outliers.values + outliers.count);
  }
  e.word_packed.scale = e.word_packed.offset = nullptr;
  e.word_packed.table = nullptr;
  e.word_packed.outliers = {};
}

void ModelBuilder::SetPackedLinear(const char* name, const PackedWeights& weights, Linear* linear) {
  if (weights.inputs > kMaxIntegerInputs) {
    Refuse("tensor " + Quoted(name) + ": packed weights of " + std::to_string(weights.inputs) +
           " columns, allowed are 1 to " + std::to_string(kMaxIntegerInputs));
  }
  IntegerMatrix matrix = MakeIntegerMatrix(weights, nullptr);
  ThreadTeam team(LoadingThreads(weights));
  const size_t scratch_bytes = RoundUp(PackScratchBytes(matrix), kAlignment);
  std::vector<uint8_t> scratch(team.size() * scratch_bytes);
  RefuseInvalidRows(name, weights.format, team, weights.outputs, kPanelColumns, [&](size_t begin, size_t thread) {
    return PackPanel(weights, begin / kPanelColumns, scratch.data() + thread * scratch_bytes, &matrix);
  });
  linear->outputs = weights.outputs;
  linear->inputs = weights.inputs;
  linear->is_integer = true;
  linear->integer = std::move(matrix);
}

void ModelBuilder::SetBinaryLinear(const char* name, const PackedWeights& weights, Linear* linear) {
  const size_t invalid = FirstInvalidRow(weights.codes, weights.outputs, weights.inputs);
  if (invalid < weights.outputs) RefuseRow(name, weights.format, invalid);
  linear->outputs = weights.outputs;
  linear->inputs = weights.inputs;
  linear->binary = MakeBinaryLinear(weights, model_.kernels->binary_layout);
}

void ModelBuilder::CheckInputScale(const Tensor& weight) const {
  const std::vector<float>& scales = weight.linear->binary.affine.scale;
  const float largest = *std::max_element(scales.begin(), scales.end()), input = weight.linear->input_scale;
  if (input * largest <= kMaxDotScale) return;
  Refuse("tensor " + Quoted(weight.name.c_str()) + ": scale " + std::to_string(largest) + " times that of its input, " +
         std::to_string(input) + ", is above 2^111: dot products would leave fp32");
}

void ModelBuilder::SetRange(const char* point, float scale, float offset) {
  const auto found = range_index_.find(point);
  if (found == range_index_.end()) {
    Refuse("range " + Quoted(point) + ": unknown activation point; a model of " + std::to_string(model_.layers.size()) +
           " layers has none of that name");
  }
  Range& range = ranges_[found->second];
  if (model_.config.activation_range != BP_UINT8_STATIC) {
    Refuse("range " + Quoted(point) + ": given to a model without static activation ranges");
  }
  if (range.given) Refuse("range " + Quoted(point) + ": given twice");
  if (!std::isfinite(scale) || scale <= 0.0f || !std::isfinite(offset)) {
    Refuse("range " + Quoted(point) + ": scale " + std::to_string(scale) + " and offset " + std::to_string(offset) +
           ", must be finite and the scale positive");
  }
  range.spec->scale = scale;
  range.spec->offset = offset;
  range.given = true;
}

void ModelBuilder::Finish() {
  std::string first;
  size_t missing = 0;
  for (const Tensor& tensor : tensors_) {
    if (tensor.given) continue;
    if (missing++ == 0) first = "tensor '" + tensor.name + "' (" + Shape(tensor.rows, tensor.cols) + ")";
  }
  for (Layer& layer : model_.layers) {
    layer.attention_input.quantized = layer.query.is_integer || layer.key.is_integer || layer.value.is_integer;
    layer.context.quantized = layer.attention_output.is_integer;
    layer.ffn_input.quantized = layer.intermediate.is_integer;
    layer.ffn_activation.quantized = layer.ffn_output.is_integer;
  }
  model_.pooler_input.quantized = model_.pooler.is_integer;
  for (const Range& range : ranges_) {
    const bool used = range.point == nullptr || range.point->quantized;
    if (!range.spec->is_static || !used || range.given) continue;
    if (missing++ == 0) first = "range '" + range.name + "'";
  }
  if (missing > 0) {
    throw Error(BP_INCOMPLETE, "the model is incomplete: " + first + " is missing" +
                                   (missing > 1 ? ", and " + std::to_string(missing - 1) + " more" : std::string()));
  }
  for (const Tensor& tensor : tensors_) {
    if (model_.is_elastic() && tensor.kind == Kind::kLinearWeight) CheckInputScale(tensor);
  }
  for (const Tensor& tensor : tensors_) {
    if (tensor.kind == Kind::kLinearBias) {
      Linear& linear = *tensor.linear;
      std::vector<float>& padded = linear.dense.panels > 0 ? linear.dense.bias
                                   : linear.is_integer     ? linear.integer.bias
                                                           : linear.binary.affine.bias;
      std::copy(tensor.bias.begin(), tensor.bias.end(), padded.begin());
    } else if (tensor.kind == Kind::kLinearWeight && tensor.linear->is_integer) {
      // H or A may equal I: then both strides see every such matrix, which only pads.
      const size_t stride = RoundUp(tensor.linear->integer.term_inputs, kAlignment);
      if (tensor.cols == model_.config.hidden_size || tensor.cols == model_.attention_size()) {
        model_.hidden_code_stride = std::max(model_.hidden_code_stride, stride);
      }
      if (tensor.cols == model_.config.intermediate_size) {
        model_.intermediate_code_stride = std::max(model_.intermediate_code_stride, stride);
      }
    }
  }
  if (model_.is_binary()) FoldBits(&model_);
}

}  // namespace bitpress
