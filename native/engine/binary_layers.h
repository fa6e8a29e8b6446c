// Layers of a fully binarized encoder (BiBERT, BiT): every activation that enters a product is a bit.
//
//   hidden -> bits -> query, key, value: bits, by thresholds -> attention: which keys, by counts of mismatches
//          -> bits of the context, by thresholds -> attention output: numbers, + hidden, LayerNorm
//          -> bits -> FFN: bits, by thresholds -> FFN output: numbers, + hidden, LayerNorm
//
// Between two LayerNorms nothing but one scale and bias is computed in floats (fold_bits.h). The FFN's activation
// function is not computed at all: a threshold on its argument gives the bit. With BiT's shifts query, key and value
// read different bits of the same hidden state.
#pragma once

#include "engine/pass.h"

namespace bitpress {

class BinaryLayers {
 public:
  // Takes its buffers from the arena.
  BinaryLayers(Arena& arena, const Model& model, const Extent& extent);

  template <typename Steps>
  void Project(const Pass& pass, const Layer& layer, const Steps& steps) const {
    TakeBits(pass, steps, {&layer.query, &layer.key, &layer.value});
    const BinaryCall calls[] = {Bits(layer.query, hidden_bits_[0], query_, BP_OP_QUERY_KEY_VALUE),
                                Bits(layer.key, hidden_bits_[1], key_, BP_OP_QUERY_KEY_VALUE),
                                Bits(layer.value, hidden_bits_[2], value_, BP_OP_QUERY_KEY_VALUE)};
    steps.Linears(calls);
  }

  void Attend(const Pass& pass, const Layer& layer) const;

  // Bits are cheap: all queries attend, and the first tokens' contexts are kept.
  template <typename Steps>
  void ProjectForFirst(const Pass& pass, const Layer& layer, const Steps& steps) const {
    Project(pass, layer, steps);
  }
  void AttendFirst(const Pass& pass, const Layer& layer) const;

  template <typename Steps>
  void Finish(const Pass& pass, const Layer& layer, const Steps& steps) const {
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) { JoinHeads(pass, begin, end, watch); });
    AddSublayer(pass, steps, context_, layer.attention_output, BP_OP_ATTENTION_OUTPUT, layer.attention_norm);
    TakeBits(pass, steps, {&layer.intermediate});
    const BinaryCall up[] = {Bits(layer.intermediate, hidden_bits_[0], intermediate_, BP_OP_FFN_UP)};
    steps.Linears(up);
    AddSublayer(pass, steps, intermediate_, layer.ffn_output, BP_OP_FFN_DOWN, layer.ffn_norm);
  }

  // logits = classifier(f(pooler(bits of the rows of hidden))), f as the head says
  template <typename Steps>
  void PoolAndClassify(const Pass& pass, float* logits, const Steps& steps) const {
    TakeBits(pass, steps, {&pass.model.pooler});
    const BinaryCall pool[] = {Numbers(pass.model.pooler, hidden_bits_[0], BP_OP_HEAD, &pass.model.head_activation)};
    steps.Linears(pool);
    ApplyHead(pass, steps, projected_);
    Classify(pass, steps, projected_, logits);
  }

 private:
  BinaryCall Bits(const Linear& linear, const BitRows& x, const BitRows& bits, Operation operation) const {
    return {&linear, x, nullptr, bits, operation, nullptr, scratch_};
  }
  BinaryCall Numbers(const Linear& linear, const BitRows& x, Operation operation, const Activation* activation) const {
    return {&linear, x, projected_, {}, operation, activation, scratch_};
  }

  // Step: the bits of hidden that each of the layers reads, the i-th from hidden_bits_[i]. Without shifts all of them
  // read the same.
  template <typename Steps, size_t N>
  void TakeBits(const Pass& pass, const Steps& steps, const Linear* const (&linears)[N]) const {
    const size_t hidden = pass.hidden_size(), different = pass.model.is_elastic() ? N : 1;
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
      for (size_t i = 0; i < different; ++i) {
        const std::vector<float>& thresholds = linears[i]->input_thresholds;
        pass.kernels.sign_bits(pass.hidden + begin * hidden, hidden, end - begin, hidden, 0.0f,
                               thresholds.empty() ? nullptr : thresholds.data(), hidden_bits_[i].row(begin),
                               hidden_bits_[i].stride);
      }
      watch.Lap(BP_OP_QUANTIZE);
    });
  }

  // Steps: hidden = LayerNorm(linear(bits) + hidden).
  template <typename Steps>
  void AddSublayer(const Pass& pass, const Steps& steps, const BitRows& bits, const Linear& linear, Operation operation,
                   const Norm& norm) const {
    const BinaryCall calls[] = {Numbers(linear, bits, operation, nullptr)};
    steps.Linears(calls);
    AddAndNormalize(pass, steps, projected_, norm);
  }

  // Of the context of one head: a row a token, whole bytes each.
  BitRows HeadRows(const Pass& pass, size_t index) const;

  // Rows begin..end-1 of all heads side by side, without the padding of each, to rows of context_.
  void JoinHeads(const Pass& pass, size_t begin, size_t end, Stopwatch& watch) const;

  float* projected_;                       // [tokens, H]
  BitRows hidden_bits_[3];                 // H bits a token; all the same where there are no shifts
  BitRows query_, key_, value_, context_;  // A bits a token
  // Of context, heads one after another (HeadRows). Not side by side, as the next layer reads them: threads have
  // different heads of the same token at the same time, and would take the cache line from each other for every token.
  uint8_t* heads_;
  BitRows intermediate_;  // I bits a token
  ThreadScratch scratch_;
};

}  // namespace bitpress
