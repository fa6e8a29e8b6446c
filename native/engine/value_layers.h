// Layers whose activations are numbers: fp32, or quantized to 8-bit codes before each product.
#pragma once

#include "engine/pass.h"

namespace bitpress {

class ValueLayers {
 public:
  // Takes its buffers from the arena.
  ValueLayers(Arena& arena, const Model& model, const Extent& extent);

  template <typename Steps>
  void Project(const Pass& pass, const Layer& layer, const Steps& steps) const {
    Quantize(pass, steps, layer.attention_input, pass.hidden, pass.hidden_size(), hidden_codes_);
    steps.Linears({{&layer.query, pass.hidden, &hidden_codes_, query_, BP_OP_QUERY_KEY_VALUE},
                   {&layer.key, pass.hidden, &hidden_codes_, key_, BP_OP_QUERY_KEY_VALUE},
                   {&layer.value, pass.hidden, &hidden_codes_, value_, BP_OP_QUERY_KEY_VALUE}});
  }

  void Attend(const Pass& pass, const Layer& layer) const { Attend(pass, layer, Queries::kAll); }

  // Keys and values: of queries, only those of the first tokens are needed.
  template <typename Steps>
  void ProjectForFirst(const Pass& pass, const Layer& layer, const Steps& steps) const {
    Quantize(pass, steps, layer.attention_input, pass.hidden, pass.hidden_size(), hidden_codes_);
    steps.Linears({{&layer.key, pass.hidden, &hidden_codes_, key_, BP_OP_QUERY_KEY_VALUE},
                   {&layer.value, pass.hidden, &hidden_codes_, value_, BP_OP_QUERY_KEY_VALUE}});
  }

  void AttendFirst(const Pass& pass, const Layer& layer) const {
    RunChain(pass.kernels, pass.team, pass.group.sequences, pass.profile, [&](const auto& steps) {
      Quantize(pass, steps, layer.attention_input, pass.hidden, pass.hidden_size(), hidden_codes_);
      steps.Linears({{&layer.query, pass.hidden, &hidden_codes_, query_, BP_OP_QUERY_KEY_VALUE}});
    });
    Attend(pass, layer, Queries::kFirst);
  }

  template <typename Steps>
  void Finish(const Pass& pass, const Layer& layer, const Steps& steps) const {
    AddSublayer(pass, steps, layer.context, context_, pass.attention_size(), hidden_codes_, layer.attention_output,
                BP_OP_ATTENTION_OUTPUT, layer.attention_norm);
    Quantize(pass, steps, layer.ffn_input, pass.hidden, pass.hidden_size(), hidden_codes_);
    steps.Linears(
        {{&layer.intermediate, pass.hidden, &hidden_codes_, intermediate_, BP_OP_FFN_UP, &pass.model.activation}});
    AddSublayer(pass, steps, layer.ffn_activation, intermediate_, pass.model.config.intermediate_size,
                intermediate_codes_, layer.ffn_output, BP_OP_FFN_DOWN, layer.ffn_norm);
  }

  // logits = classifier(f(pooler(rows of hidden))), f as the head says
  template <typename Steps>
  void PoolAndClassify(const Pass& pass, float* logits, const Steps& steps) const {
    Quantize(pass, steps, pass.model.pooler_input, pass.hidden, pass.hidden_size(), hidden_codes_);
    steps.Linears(
        {{&pass.model.pooler, pass.hidden, &hidden_codes_, projected_, BP_OP_HEAD, &pass.model.head_activation}});
    ApplyHead(pass, steps, projected_);
    Classify(pass, steps, projected_, logits);
  }

 private:
  // Which queries attend: those of all tokens, or of each sequence's first token, whose query and context are row s.
  enum class Queries { kAll, kFirst };
  void Attend(const Pass& pass, const Layer& layer, Queries queries) const;

  // Step: x, [tokens, cols], to codes, where the point is quantized.
  template <typename Steps>
  void Quantize(const Pass& pass, const Steps& steps, const InputPoint& point, const float* x, size_t cols,
                const QuantizedRows& codes) const {
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
      QuantizeInput(pass.kernels, point, x, cols, begin, end, codes, watch);
    });
  }

  // Steps: quantizes x for `point`, runs `linear` and sets hidden = LayerNorm(its output + hidden).
  template <typename Steps>
  void AddSublayer(const Pass& pass, const Steps& steps, const InputPoint& point, const float* x, size_t cols,
                   const QuantizedRows& codes, const Linear& linear, Operation operation, const Norm& norm) const {
    Quantize(pass, steps, point, x, cols, codes);
    steps.Linears({{&linear, x, &codes, projected_, operation}});
    AddAndNormalize(pass, steps, projected_, norm);
  }

  float *query_, *key_, *value_, *context_;          // [tokens, A]
  float* projected_;                                 // [tokens, H]
  float* intermediate_;                              // [tokens, I]
  QuantizedRows hidden_codes_, intermediate_codes_;  // share scale and offset: of a row never both alive
  uint8_t* attention_scratch_;                       // one piece a thread
  size_t attention_scratch_stride_;
};

}  // namespace bitpress
