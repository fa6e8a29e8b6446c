// A model as the engine runs it, and the builder that fills it from named tensors.
//
// Names and shapes are those of artifacts (docs/artifact.md). Linear weights are re-laid for the kernels when they are
// given; everything else is copied, except the codes of a ternary word embedding, which stay where they are.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/packed_codes.h"
#include "engine/workspace.h"
#include "include/bitpress.h"
#include "kernels/dispatch.h"

namespace bitpress {

// y = x wT + bias, with either ternary weights (8-bit activations) or fp32 ones.
struct Linear {
  size_t outputs = 0, inputs = 0;
  bool is_ternary = false;
  TernaryMatrix ternary;
  FloatMatrix dense;

  size_t panels() const { return is_ternary ? ternary.panels : dense.panels; }
  size_t panel_columns() const { return is_ternary ? kPanelColumns : kFloatPanelColumns; }
};

struct Norm {
  std::vector<float> weight, bias;  // [H]
};

// The input of linear layers: quantized once where at least one of them is ternary.
struct InputPoint {
  QuantizeSpec spec;
  bool quantized = false;
};

struct Embeddings {
  std::vector<float> word;              // [V, H], empty where ternary
  const uint8_t* word_codes = nullptr;  // V rows of word_row_bytes; not owned
  bp_packing word_packing = BP_PACK_2BIT;
  size_t word_row_bytes = 0;
  std::vector<float> word_scale;  // [1] or [V]
  std::vector<float> position;    // [P, H]
  std::vector<float> token_type;  // [T, H]
  Norm norm;
};

struct Layer {
  InputPoint attention_input, context, ffn_input, ffn_activation;
  AttentionSpecs attention;
  Linear query, key, value, attention_output, intermediate, ffn_output;
  Norm attention_norm, ffn_norm;
};

struct Model {
  bp_config config{};
  const Kernels* kernels = nullptr;
  Activation activation = Activation::kGelu;
  bool uint8_attention = false;
  Embeddings embeddings;
  std::vector<Layer> layers;
  InputPoint pooler_input;
  Linear pooler, classifier;
  // Row strides of quantized inputs with H and I columns: what the ternary kernels read, rounded to kAlignment.
  size_t hidden_code_stride = 0, intermediate_code_stride = 0;

  size_t head_size() const { return config.hidden_size / config.num_heads; }
};

// Fills a model. Every refusal is an Error that names the tensor, what was found and what is expected.
class ModelBuilder {
 public:
  // Checks the configuration. `model` must stay where it is until Finish.
  ModelBuilder(const bp_config& config, const Kernels* kernels, Model* model);

  void SetFloat(const char* name, const float* data, size_t rows, size_t cols);
  void SetTernary(const char* name, const uint8_t* codes, size_t rows, size_t cols, uint32_t packing,
                  const float* scale, size_t scale_count);
  void SetRange(const char* point, float scale, float offset);
  // BP_INCOMPLETE names the first missing tensor or range in the model's order.
  void Finish();

 private:
  enum class Kind { kWordEmbedding, kFloats, kLinearWeight, kClassifierWeight, kLinearBias };
  struct Tensor {
    std::string name;
    Kind kind;
    size_t rows, cols;
    Linear* linear;              // of weight and bias
    std::vector<float>* floats;  // of the others
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
  void AddNorm(const std::string& name, Norm* norm);
  void AddPoint(const std::string& name, InputPoint* point);
  void AddAttentionPoint(const std::string& name, QuantizeSpec* spec);
  // The tensor of that name and shape, not given before; marks it as given.
  Tensor& Expect(const char* name, size_t rows, size_t cols);

  Model& model_;
  std::vector<Tensor> tensors_;
  std::vector<Range> ranges_;
  std::unordered_map<std::string, size_t> tensor_index_, range_index_;
};

}  // namespace bitpress
