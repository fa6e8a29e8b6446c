#include "engine/fold_bits.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace bitpress {
namespace {

bool IsPositive(size_t, float y) { return y >= 0.0f; }

void MultiplyInputScale(Linear* linear) {
  for (float& scale : linear->binary.affine.scale) scale = linear->input_scale * scale;
}

// x + shift >= 0 is x >= -shift, exactly: a rounded sum has the sign of the exact one.
void FindInputThresholds(Linear* linear) {
  linear->input_thresholds = std::move(linear->input_shift);
  for (float& threshold : linear->input_thresholds) threshold = -threshold;
}

// The bits that ffn_output reads, ReLU included: it is monotone too.
void FoldIntermediate(Layer* layer) {
  const std::vector<float>& shift = layer->ffn_output.input_shift;
  const float half = layer->ffn_output.input_scale * 0.5f;
  FoldOutputs([&](size_t n, float y) { return std::max(y, 0.0f) + shift[n] >= half; }, &layer->intermediate.binary);
  layer->ffn_output.binary.input_set = BitSet::kZeroOne;
}

// The bits that attention_output reads: one threshold a column of all heads.
void FoldContexts(const Model& model, Layer* layer) {
  const size_t head_size = model.head_size();
  const float worth = layer->states.probabilities * layer->states.value;
  std::vector<int32_t> thresholds(head_size);
  for (size_t head = 0; head < model.config.num_heads; ++head) {
    for (size_t c = 0; c < head_size; ++c) {
      const float shift = model.is_elastic() ? layer->attention_output.input_shift[head * head_size + c] : 0.0f;
      const auto bit = [&](int32_t context) { return worth * static_cast<float>(context) + shift >= 0.0f; };
      thresholds[c] = FoldDot(model.config.max_positions, bit).threshold;
    }
    layer->context_thresholds.push_back(PackThresholds(thresholds.data(), nullptr, head_size));
  }
}

// exp of minus the difference of two scores, by the mismatches that one has more.
std::vector<float> DecayOfScores(const Model& model, const StateScales& states) {
  const float scale = states.query * states.key / std::sqrt(static_cast<float>(model.head_size()));
  std::vector<float> decay(model.head_size() + 1);
  for (size_t k = 0; k < decay.size(); ++k) decay[k] = -(scale * static_cast<float>(2 * k));
  model.kernels->activate(Activation::kExp, decay.data(), decay.size());
  return decay;
}

void FoldLayer(const Model& model, Layer* layer) {
  for (Linear* linear : {&layer->query, &layer->key, &layer->value, &layer->attention_output, &layer->intermediate,
                         &layer->ffn_output}) {
    MultiplyInputScale(linear);
  }
  for (Linear* linear : {&layer->query, &layer->key, &layer->value}) {
    FindInputThresholds(linear);
    FoldOutputs(IsPositive, &linear->binary);
  }
  FoldContexts(model, layer);
  FindInputThresholds(&layer->intermediate);
  if (!model.is_elastic()) {
    FoldOutputs(IsPositive, &layer->intermediate.binary);
    layer->attended.most = model.config.attention == BP_ATTEND_ALL ? model.head_size() : model.head_size() / 2;
    return;
  }
  FoldIntermediate(layer);
  layer->decay = DecayOfScores(model, layer->states);
  layer->attended = {0, layer->decay.data(), layer->states.probabilities * 0.5f};
}

}  // namespace

void FoldBits(Model* model) {
  for (Layer& layer : model->layers) FoldLayer(*model, &layer);
  if (!model->has_pooler()) return;
  MultiplyInputScale(&model->pooler);
  FindInputThresholds(&model->pooler);
}

}  // namespace bitpress
