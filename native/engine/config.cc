#include "engine/config.h"

#include <cmath>
#include <string>

#include "engine/error.h"

namespace bitpress {
namespace {

// Bounds of the configuration. They keep every product of two sizes far inside size_t, and the sums of probabilities
// times values in int32 (255^2 * 2^15 < 2^31); integer linear layers have a bound of their own, kMaxIntegerInputs.
constexpr uint32_t kMaxInputs = 1u << 20, kMaxPositions = 1u << 15, kMaxLayers = 1u << 10, kMaxRows = 1u << 28;

void CheckSize(const char* field, uint64_t found, uint32_t limit) {
  if (found >= 1 && found <= limit) return;
  Refuse(std::string("config: ") + field + " is " + std::to_string(found) + ", allowed are 1 to " +
         std::to_string(limit));
}

void CheckBinaryConfig(const bp_config& c) {
  static_assert(kMaxBinaryInputs < kMaxPositions, "a context sums over the positions");
  CheckSize("max_positions", c.max_positions, kMaxBinaryInputs);
  CheckSize("hidden_size", c.hidden_size, kMaxBinaryInputs);
  CheckSize("intermediate_size", c.intermediate_size, kMaxBinaryInputs);
  CheckSize("num_heads * head_size", c.num_heads * c.head_size, kMaxBinaryInputs);
  CheckSize("head_size", c.head_size, kMaxBitHeadSize);
  const bool elastic = c.attention == BP_ATTEND_SOFTMAX, relu = c.hidden_act == BP_ACT_RELU;
  if (elastic && !relu) Refuse("config: hidden_act is not relu, which elastic 1-bit activations (softmax) need");
  if (!elastic && relu) {
    Refuse("config: hidden_act is relu, which is never negative: with 1-bit activations its signs say nothing");
  }
  if (c.activation_symmetric != 0 || c.activation_clip != 0.0f) {
    Refuse("config: activation_symmetric and activation_clip are for uint8 activations, must be 0 with 1-bit ones");
  }
}

}  // namespace

void CheckConfig(const bp_config& c) {
  CheckSize("vocab_size", c.vocab_size, kMaxRows);
  CheckSize("max_positions", c.max_positions, kMaxPositions);
  CheckSize("type_vocab_size", c.type_vocab_size, kMaxRows);
  CheckSize("embedding_size", c.embedding_size, kMaxInputs);
  CheckSize("hidden_size", c.hidden_size, kMaxInputs);
  CheckSize("num_layers", c.num_layers, kMaxLayers);
  CheckSize("num_heads", c.num_heads, kMaxInputs);
  CheckSize("intermediate_size", c.intermediate_size, kMaxInputs);
  CheckSize("num_labels", c.num_labels, kMaxRows);
  // An 8-bit attention sum runs over a head's columns or a text's tokens; int32 holds no longer one.
  static_assert(kMaxPositions <= kMaxAttentionInputs, "positions are bounded below what attention can sum");
  CheckSize("head_size", c.head_size, kMaxAttentionInputs);
  CheckSize("num_heads * head_size", uint64_t{c.num_heads} * c.head_size, kMaxInputs);
  if (c.hidden_act > BP_ACT_SILU) {
    Refuse("config: hidden_act is " + std::to_string(c.hidden_act) + ", allowed are 0 to " +
           std::to_string(BP_ACT_SILU));
  }
  if (c.head > BP_HEAD_MAX) {
    Refuse("config: head is " + std::to_string(c.head) + ", allowed are 0 to " + std::to_string(BP_HEAD_MAX));
  }
  if (c.head > BP_HEAD_TOKENS && c.num_labels != c.hidden_size) {
    Refuse("config: num_labels is " + std::to_string(c.num_labels) + ", must be hidden_size, " +
           std::to_string(c.hidden_size) + ", where there is no classifier");
  }
  if (c.activation_range > BP_SIGNS) {
    Refuse("config: activation_range is " + std::to_string(c.activation_range) + ", allowed are 0 to " +
           std::to_string(BP_SIGNS));
  }
  if (c.attention > (c.activation_range == BP_SIGNS ? uint32_t{BP_ATTEND_SOFTMAX} : 0)) {
    Refuse("config: attention is " + std::to_string(c.attention) +
           ", allowed are 0 to 2 with 1-bit activations and 0 with others");
  }
  const bool is_uint8 = c.activation_range == BP_UINT8_TOKEN || c.activation_range == BP_UINT8_STATIC;
  if (is_uint8 ? c.activation_bits != 8 && c.activation_bits != 4 : c.activation_bits != 0) {
    Refuse("config: activation_bits is " + std::to_string(c.activation_bits) +
           ", allowed are 8 and 4 with uint8 codes and 0 with others");
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

Activation HeadActivationOf(uint32_t head) {
  switch (head) {
    case BP_HEAD_DENSE_RELU:
      return Activation::kRelu;
    case BP_HEAD_DENSE_GELU:
      return Activation::kGelu;
    default:
      return Activation::kTanh;
  }
}

}  // namespace bitpress
