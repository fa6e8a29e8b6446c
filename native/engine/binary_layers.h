// Layers of a fully binarized encoder (BiBERT): every activation that enters a product is a bit.
//
//   hidden -> signs -> query, key, value: signs, by thresholds -> Bi-Attention -> signs of the context
//          -> attention output: numbers, + hidden, LayerNorm
//          -> signs -> FFN: signs, by thresholds -> FFN output: numbers, + hidden, LayerNorm
//
// Between two LayerNorms nothing but one scale and bias is computed in floats. The FFN's activation function is not
// computed at all: those that are allowed keep the sign of their argument, and nothing else of them is used.
#pragma once

#include "engine/pass.h"

namespace bitpress {

class BinaryLayers {
 public:
  // Takes its buffers from the arena.
  BinaryLayers(Arena& arena, const Model& model, const Extent& extent);

  template <typename Steps>
  void Project(const Pass& pass, const Layer& layer, const Steps& steps) const {
    TakeSigns(pass, steps);
    const BinaryCall calls[] = {Signs(layer.query, hidden_signs_, query_, BP_OP_QUERY_KEY_VALUE),
                                Signs(layer.key, hidden_signs_, key_, BP_OP_QUERY_KEY_VALUE),
                                Signs(layer.value, hidden_signs_, value_, BP_OP_QUERY_KEY_VALUE)};
    steps.Linears(calls);
  }

  void Attend(const Pass& pass, const Layer& layer) const;

  // Bits are cheap: all queries attend, and the first tokens' contexts are kept.
  template <typename Steps>
  void ProjectForFirst(const Pass& pass, const Layer& layer, const Steps& steps) const {
    Project(pass, layer, steps);
  }
  void AttendFirst(const Pass& pass, const Layer& layer) const {
    Attend(pass, layer);
    GatherFirstTokens(pass, heads_.bits, heads_.stride);
  }

  template <typename Steps>
  void Finish(const Pass& pass, const Layer& layer, const Steps& steps) const {
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) { JoinHeads(pass, begin, end, watch); });
    AddSublayer(pass, steps, context_, layer.attention_output, BP_OP_ATTENTION_OUTPUT, layer.attention_norm);
    TakeSigns(pass, steps);
    const BinaryCall up[] = {Signs(layer.intermediate, hidden_signs_, intermediate_, BP_OP_FFN_UP)};
    steps.Linears(up);
    AddSublayer(pass, steps, intermediate_, layer.ffn_output, BP_OP_FFN_DOWN, layer.ffn_norm);
  }

  // logits = classifier(tanh(pooler(signs of the rows of hidden)))
  template <typename Steps>
  void PoolAndClassify(const Pass& pass, float* logits, const Steps& steps) const {
    static constexpr Activation kTanh = Activation::kTanh;
    TakeSigns(pass, steps);
    const BinaryCall pool[] = {Numbers(pass.model.pooler, hidden_signs_, BP_OP_HEAD, &kTanh)};
    steps.Linears(pool);
    steps.Linears({{&pass.model.classifier, projected_, nullptr, logits, BP_OP_HEAD}});
  }

 private:
  BinaryCall Signs(const Linear& linear, const BitRows& x, const BitRows& signs, Operation operation) const {
    return {&linear, x, nullptr, signs, operation, nullptr, scratch_};
  }
  BinaryCall Numbers(const Linear& linear, const BitRows& x, Operation operation, const Activation* activation) const {
    return {&linear, x, projected_, {}, operation, activation, scratch_};
  }

  // Step: the signs of hidden.
  template <typename Steps>
  void TakeSigns(const Pass& pass, const Steps& steps) const {
    const size_t hidden = pass.hidden_size();
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
      pass.kernels.sign_bits(pass.hidden + begin * hidden, hidden, end - begin, hidden, 0.0f, nullptr,
                             hidden_signs_.row(begin), hidden_signs_.stride);
      watch.Lap(BP_OP_QUANTIZE);
    });
  }

  // Steps: hidden = LayerNorm(linear(signs) + hidden).
  template <typename Steps>
  void AddSublayer(const Pass& pass, const Steps& steps, const BitRows& signs, const Linear& linear,
                   Operation operation, const Norm& norm) const {
    const BinaryCall calls[] = {Numbers(linear, signs, operation, nullptr)};
    steps.Linears(calls);
    AddAndNormalize(pass, steps, projected_, norm);
  }

  // Rows begin..end-1 of heads_ to rows of context_ without the padding of each head; nothing where there is none.
  void JoinHeads(const Pass& pass, size_t begin, size_t end, Stopwatch& watch) const;

  float* projected_;                                      // [tokens, H]
  BitRows hidden_signs_, query_, key_, value_, context_;  // H bits a token
  BitRows heads_;         // of context: heads that start at a byte each, as threads compute them; or context_ itself
  BitRows intermediate_;  // I bits a token
  ThreadScratch scratch_;
};

}  // namespace bitpress
