#include "engine/model.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/packed_tensor.h"
#include "engine/thread_pool.h"

namespace bitpress {
namespace {

// Bounds of the configuration. They keep every product of two sizes far inside size_t, and the sums of probabilities
// times values in int32 (255^2 * 2^15 < 2^31); integer linear layers have a bound of their own, kMaxIntegerInputs.
constexpr uint32_t kMaxInputs = 1u << 20, kMaxPositions = 1u << 15, kMaxLayers = 1u << 10, kMaxRows = 1u << 28;

std::string Shape(size_t rows, size_t cols) { return std::to_string(rows) + " x " + std::to_string(cols); }

void CheckSize(const char* field, uint32_t found, uint32_t limit) {
  if (found >= 1 && found <= limit) return;
  Refuse(std::string("config: ") + field + " is " + std::to_string(found) + ", allowed are 1 to " +
         std::to_string(limit));
}

void CheckBinaryConfig(const bp_config& c) {
  static_assert(kMaxBinaryInputs < kMaxPositions, "a context sums over the positions");
  CheckSize("max_positions", c.max_positions, kMaxBinaryInputs);
  CheckSize("hidden_size", c.hidden_size, kMaxBinaryInputs);
  CheckSize("intermediate_size", c.intermediate_size, kMaxBinaryInputs);
  CheckSize("hidden_size / num_heads", c.hidden_size / c.num_heads, kMaxBitHeadSize);
  if (c.hidden_act == BP_ACT_RELU) {
    Refuse("config: hidden_act is relu, which is never negative: with 1-bit activations its signs say nothing");
  }
  if (c.activation_symmetric != 0 || c.activation_clip != 0.0f) {
    Refuse("config: activation_symmetric and activation_clip are for 8-bit activations, must be 0 with 1-bit ones");
  }
}

void CheckConfig(const bp_config& c) {
  CheckSize("vocab_size", c.vocab_size, kMaxRows);
  CheckSize("max_positions", c.max_positions, kMaxPositions);
  CheckSize("type_vocab_size", c.type_vocab_size, kMaxRows);
  CheckSize("hidden_size", c.hidden_size, kMaxInputs);
  CheckSize("num_layers", c.num_layers, kMaxLayers);
  CheckSize("num_heads", c.num_heads, c.hidden_size);
  CheckSize("intermediate_size", c.intermediate_size, kMaxInputs);
  CheckSize("num_labels", c.num_labels, kMaxRows);
  if (c.hidden_size % c.num_heads != 0) {
    Refuse("config: hidden_size " + std::to_string(c.hidden_size) + " is not a multiple of num_heads " +
           std::to_string(c.num_heads));
  }
  // An 8-bit attention sum runs over a head's columns or a text's tokens; int32 holds no longer one.
  static_assert(kMaxPositions <= kMaxAttentionInputs, "positions are bounded below what attention can sum");
  CheckSize("hidden_size / num_heads", c.hidden_size / c.num_heads, kMaxAttentionInputs);
  if (c.hidden_act > BP_ACT_SILU) {
    Refuse("config: hidden_act is " + std::to_string(c.hidden_act) + ", allowed are 0 to " +
           std::to_string(BP_ACT_SILU));
  }
  if (c.activation_range > BP_SIGNS) {
    Refuse("config: activation_range is " + std::to_string(c.activation_range) + ", allowed are 0 to " +
           std::to_string(BP_SIGNS));
  }
  if (c.activation_symmetric > 1) {
    Refuse("config: activation_symmetric is " + std::to_string(c.activation_symmetric) + ", allowed are 0 and 1");
  }
  if (!std::isfinite(c.activation_clip) || c.activation_clip < 0.0f) {
    Refuse("config: activation_clip is " + std::to_string(c.activation_clip) + ", allowed are 0 (none) and above");
  }
  if (!std::isfinite(c.layer_norm_eps) || c.layer_norm_eps <= 0.0f) {
    Refuse("config: layer_norm_eps is " + std::to_string(c.layer_norm_eps) + ", allowed is above 0");
  }
  if (c.activation_range == BP_SIGNS) CheckBinaryConfig(c);
}

Activation ActivationOf(uint32_t hidden_act) {
  switch (hidden_act) {
    case BP_ACT_GELU_TANH:
      return Activation::kGeluTanh;
    case BP_ACT_RELU:
      return Activation::kRelu;
    case BP_ACT_SILU:
      return Activation::kSilu;
    default:
      return Activation::kGelu;  // CheckConfig allows nothing else
  }
}

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
  model_.uint8_attention = config.activation_range == BP_UINT8_TOKEN || config.activation_range == BP_UINT8_STATIC;
  model_.layers.resize(config.num_layers);
  const size_t hidden = config.hidden_size, intermediate = config.intermediate_size;

  Embeddings& e = model_.embeddings;
  AddTensor("embeddings.word.weight", Kind::kWordEmbedding, config.vocab_size, hidden, nullptr, &e.word);
  AddTensor("embeddings.position.weight", Kind::kFloats, config.max_positions, hidden, nullptr, &e.position);
  AddTensor("embeddings.token_type.weight", Kind::kFloats, config.type_vocab_size, hidden, nullptr, &e.token_type);
  AddNorm("embeddings.norm", &e.norm);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    Layer& layer = model_.layers[i];
    AddLinear(name + ".attention.query", hidden, hidden, &layer.query);
    AddLinear(name + ".attention.key", hidden, hidden, &layer.key);
    AddLinear(name + ".attention.value", hidden, hidden, &layer.value);
    AddLinear(name + ".attention.output", hidden, hidden, &layer.attention_output);
    AddNorm(name + ".attention.norm", &layer.attention_norm);
    AddLinear(name + ".ffn.intermediate", intermediate, hidden, &layer.intermediate);
    AddLinear(name + ".ffn.output", hidden, intermediate, &layer.ffn_output);
    AddNorm(name + ".ffn.norm", &layer.ffn_norm);
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
    for (Linear* linear : {&layer.query, &layer.key, &layer.value, &layer.intermediate}) linear->signs_only = true;
  }
  AddPoint("pooler.input", &model_.pooler_input);
  AddLinear("pooler.dense", hidden, hidden, &model_.pooler);
  AddTensor("classifier.weight", Kind::kClassifierWeight, config.num_labels, hidden, &model_.classifier, nullptr);
  AddTensor("classifier.bias", Kind::kLinearBias, 1, config.num_labels, &model_.classifier, nullptr);
}

void ModelBuilder::AddTensor(const std::string& name, Kind kind, size_t rows, size_t cols, Linear* linear,
                             std::vector<float>* floats) {
  tensor_index_.emplace(name, tensors_.size());
  tensors_.push_back({name, kind, rows, cols, linear, floats, {}, false});
}

void ModelBuilder::AddLinear(const std::string& name, size_t outputs, size_t inputs, Linear* linear) {
  AddTensor(name + ".weight", Kind::kLinearWeight, outputs, inputs, linear, nullptr);
  model_.linears.emplace(name + ".weight", linear);
  AddTensor(name + ".bias", Kind::kLinearBias, 1, outputs, linear, nullptr);
}

void ModelBuilder::AddNorm(const std::string& name, Norm* norm) {
  AddTensor(name + ".weight", Kind::kFloats, 1, model_.config.hidden_size, nullptr, &norm->weight);
  AddTensor(name + ".bias", Kind::kFloats, 1, model_.config.hidden_size, nullptr, &norm->bias);
}

void ModelBuilder::AddPoint(const std::string& name, InputPoint* point) {
  AddAttentionPoint(name, &point->spec);
  ranges_.back().point = point;
}

void ModelBuilder::AddAttentionPoint(const std::string& name, QuantizeSpec* spec) {
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
    case Kind::kLinearWeight:
      if (model_.is_binary()) {
        Refuse("tensor " + Quoted(name) + ": given as fp32, 1-bit activations need binary weights");
      }
      [[fallthrough]];
    case Kind::kClassifierWeight:
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
    Refuse("tensor " + Quoted(name) + ": packed linear weights need 8-bit activations, the model has fp32 ones");
  }
  const PackedWeights weights = CheckPacked(name, packed);
  const bool is_binary = weights.format.scheme == CodeScheme::kBinary;
  if (!is_word && is_binary != model_.is_binary()) {
    Refuse("tensor " + Quoted(name) + ": " +
           (is_binary ? "binary linear weights need 1-bit activations, the model has 8-bit ones"
                      : "1-bit activations need binary weights"));
  }
  if (is_word) {
    SetPackedWord(name, weights);
  } else if (is_binary) {
    SetBinaryLinear(name, weights, tensor.linear);
  } else {
    SetPackedLinear(name, weights, tensor.linear);
  }
  tensor.given = true;
}

void ModelBuilder::SetPackedWord(const char* name, const PackedWeights& weights) {
  if (weights.format.scheme == CodeScheme::kCodebook) {
    Refuse("tensor " + Quoted(name) + ": the word embedding takes ternary, uniform and binary codes");
  }
  constexpr size_t kRowsPerTask = 64;
  ThreadTeam team(LoadingThreads(weights));
  std::vector<uint8_t> codes(team.size() * weights.inputs);
  const size_t row_bytes = PackedRowBytes(weights.format, weights.inputs);
  RefuseInvalidRows(name, weights.format, team, weights.outputs, kRowsPerTask, [&](size_t begin, size_t thread) {
    const size_t end = std::min(weights.outputs, begin + kRowsPerTask);
    uint8_t* scratch = codes.data() + thread * weights.inputs;
    for (size_t r = begin; r < end; ++r) {
      if (!UnpackCodes(weights.format, weights.codes + r * row_bytes, weights.inputs, scratch)) return r;
    }
    return weights.outputs;
  });
  Embeddings& e = model_.embeddings;
  const size_t groups = (weights.outputs + weights.group_rows - 1) / weights.group_rows *
                        ((weights.inputs + weights.group_inputs - 1) / weights.group_inputs);
  e.word_packed = weights;
  e.word_scale.assign(weights.scale, weights.scale + groups);
  if (weights.offset != nullptr) e.word_offset.assign(weights.offset, weights.offset + groups);
  e.word_packed.scale = e.word_packed.offset = nullptr;
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
  linear->binary = MakeBinaryLinear(weights);
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
  if (model_.is_binary()) {
    const std::vector<int32_t> zeros(model_.head_size());
    model_.context_thresholds = PackThresholds(zeros.data(), nullptr, zeros.size());
  }
  for (const Tensor& tensor : tensors_) {
    if (tensor.kind == Kind::kLinearBias) {
      Linear& linear = *tensor.linear;
      if (model_.is_binary() && &linear != &model_.classifier) {
        SetBias(tensor.bias, linear.signs_only, &linear.binary);
        continue;
      }
      std::vector<float>& padded = linear.is_integer ? linear.integer.bias : linear.dense.bias;
      std::copy(tensor.bias.begin(), tensor.bias.end(), padded.begin());
    } else if (tensor.kind == Kind::kLinearWeight && tensor.linear->is_integer) {
      // H may equal I: then both strides see every matrix, which only pads.
      const size_t stride = RoundUp(tensor.linear->integer.padded_inputs, kAlignment);
      if (tensor.cols == model_.config.hidden_size) {
        model_.hidden_code_stride = std::max(model_.hidden_code_stride, stride);
      }
      if (tensor.cols == model_.config.intermediate_size) {
        model_.intermediate_code_stride = std::max(model_.intermediate_code_stride, stride);
      }
    }
  }
}

}  // namespace bitpress
