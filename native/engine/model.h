// A model as the engine runs it, and the builder that fills it from named tensors.
//
// Names and shapes are those of artifacts (docs/artifact.md). Linear weights are re-laid for the kernels when they are
// given; everything else is copied, except the codes of a packed word embedding, which stay where they are.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/binary_linear.h"
#include "engine/workspace.h"
#include "include/bitpress.h"
#include "kernels/dispatch.h"

namespace bitpress {

// y = x wT + bias, with few-bit weights (uint8 activations), fp32 ones, or in a binary model one-bit ones.
struct Linear {
  size_t outputs = 0, inputs = 0;
  bool is_integer = false;
  IntegerMatrix integer;
  FloatMatrix dense;
  BinaryLinear binary;
  // Elastic binarization (BiT) of its input: bit = x + shift >= 0, or for zeros and ones >= scale / 2, worth scale.
  float input_scale = 1.0f;
  std::vector<float> input_shift;       // [inputs], empty where there is none
  std::vector<float> input_thresholds;  // [inputs], empty where all are 0: bit = x >= threshold

  size_t panels() const { return is_integer ? integer.panels : dense.panels; }
  size_t panel_columns() const { return is_integer ? kPanelColumns : kFloatPanelColumns; }
};

struct Norm {
  std::vector<float> weight, bias;  // [H], of the embeddings [E]
};

// The input of linear layers: quantized once where at least one of them has integer weights.
struct InputPoint {
  QuantizeSpec spec;
  bool quantized = false;
};

struct Embeddings {
  std::vector<float> word;                     // [V, E], empty where packed
  PackedWeights word_packed;                   // codes NULL where fp32; codes not owned, what is else those below
  std::vector<float> word_scale, word_offset;  // a group of rows
  int8_t word_table[16] = {};                  // of a codebook
  std::vector<size_t> word_outlier_begin;      // [V + 1], empty where there are none
  std::vector<uint16_t> word_outlier_columns;
  std::vector<float> word_outliers;
  std::vector<float> position;    // [P, E]
  std::vector<float> token_type;  // [T, E]
  Norm norm;
  Linear projection;  // E to H, fp32; of no use where E is H
};

// What a bit of each stands for in elastic binarization; elsewhere 1.
struct StateScales {
  float query = 1.0f, key = 1.0f, value = 1.0f, probabilities = 1.0f;
};

struct Layer {
  InputPoint attention_input, context, ffn_input, ffn_activation;
  AttentionSpecs attention;
  Linear query, key, value, attention_output, intermediate, ffn_output;
  Norm attention_norm, ffn_norm;
  // Of binary models.
  StateScales states;
  std::vector<float> decay;  // elastic: [head size + 1], what `attended` points to
  AttendedKeys attended;
  std::vector<BinaryThresholds> context_thresholds;  // a head
};

struct Model {
  bp_config config{};
  const Kernels* kernels = nullptr;
  Activation activation = Activation::kGelu;       // of feed-forward networks
  Activation head_activation = Activation::kTanh;  // of the pooler's linear
  bool uint8_attention = false;
  Embeddings embeddings;
  std::vector<Layer> layers;
  InputPoint pooler_input;
  Linear pooler, classifier;
  std::unordered_map<std::string, const Linear*> linears;  // by the names of their weights
  // Row strides of quantized inputs with H or A columns, and with I: what the integer kernels read, rounded to
  // kAlignment.
  size_t hidden_code_stride = 0, intermediate_code_stride = 0;

  // One-bit activations, and one-bit weights in every linear layer but the classifier.
  bool is_binary() const { return config.activation_range == BP_SIGNS; }
  // Of these, BiT's, whose bits have scales and shifts.
  bool is_elastic() const { return config.attention == BP_ATTEND_SOFTMAX; }
  // The classifier reads every token, and there is no pooler.
  bool classifies_tokens() const { return config.head == BP_HEAD_TOKENS; }
  bool has_pooler() const { return config.head < BP_HEAD_TOKENS; }
  // Otherwise a sequence's answer is made of its last hidden states alone.
  bool has_classifier() const { return config.head <= BP_HEAD_TOKENS; }
  // Of the last layer's output only the rows of first tokens matter.
  bool reads_first_tokens() const { return has_pooler() || config.head == BP_HEAD_CLS; }
  bool projects_embeddings() const { return config.embedding_size != config.hidden_size; }
  size_t head_size() const { return config.head_size; }
  // A: columns of all heads.
  size_t attention_size() const { return size_t{config.num_heads} * config.head_size; }
};

// The linear layer of that weight. An unknown name is refused.
const Linear& FindLinear(const Model& model, const char* weight);

// Fills a model. Every refusal is an Error that names the tensor, what was found and what is expected.
class ModelBuilder {
 public:
  // Checks the configuration. `model` must stay where it is until Finish.
  ModelBuilder(const bp_config& config, const Kernels* kernels, Model* model);

  void SetFloat(const char* name, const float* data, size_t rows, size_t cols);
  void SetPacked(const char* name, const bp_packed& tensor);
  void SetRange(const char* point, float scale, float offset);
  // BP_INCOMPLETE names the first missing tensor or range in the model's order.
  void Finish();

 private:
  enum class Kind { kWordEmbedding, kFloats, kLinearWeight, kFloatLinearWeight, kLinearBias, kScale, kShift };
  struct Tensor {
    std::string name;
    Kind kind;
    size_t rows, cols;
    Linear* linear;              // of weight and bias
    std::vector<float>* floats;  // of the others
    float* scale = nullptr;      // of kScale
    std::vector<float> bias;     // waits here for the weight
    bool given = false;
  };
  struct Range {
    std::string name;
    QuantizeSpec* spec;
    const InputPoint* point;  // NULL: a point inside attention
    bool given = false;
  };

  void AddTensor(const std::string& name, Kind kind, size_t rows, size_t cols, Linear* linear,
                 std::vector<float>* floats);
  void AddLinear(const std::string& name, size_t outputs, size_t inputs, Linear* linear);
  void AddFloatLinear(const std::string& name, size_t outputs, size_t inputs, Linear* linear);
  void AddNorm(const std::string& name, size_t size, Norm* norm);
  void AddScale(const std::string& name, float* scale);
  void AddPoint(const std::string& name, InputPoint* point);
  void AddAttentionPoint(const std::string& name, QuantizeSpec* spec);
  void SetPackedWord(const char* name, const PackedWeights& weights);
  void SetPackedLinear(const char* name, const PackedWeights& weights, Linear* linear);
  void SetBinaryLinear(const char* name, const PackedWeights& weights, Linear* linear);
  // Refuses scales of an elastic layer's weight and input whose products leave fp32.
  void CheckInputScale(const Tensor& weight) const;
  // The tensor of that name and shape, not given before.
  Tensor& Expect(const char* name, size_t rows, size_t cols);

  Model& model_;
  std::vector<Tensor> tensors_;
  std::vector<Range> ranges_;
  std::unordered_map<std::string, size_t> tensor_index_, range_index_;
};

}  // namespace bitpress
