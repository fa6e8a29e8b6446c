// One group of sequences on its way through a model: what is the same for every kind of layers.
#pragma once

#include <cstring>

#include "engine/forward.h"
#include "engine/layers.h"
#include "engine/thread_pool.h"

namespace bitpress {

// The largest group of a call; what buffers must hold.
struct Extent {
  size_t tokens, sequences, longest, threads;
};

struct Pass {
  const Model& model;
  const Kernels& kernels;
  ThreadTeam& team;
  Profile* profile;  // NULL: nobody asked
  const Batch& group;
  float* hidden;              // [tokens, H]
  float* embedded;            // [tokens, E]: what is projected to `hidden`; where E is H, `hidden` itself
  const size_t* starts;       // [sequences]: first token of each
  const uint32_t* positions;  // [tokens]: of each token in its own sequence

  size_t hidden_size() const { return model.config.hidden_size; }
  size_t embedding_size() const { return model.config.embedding_size; }
  size_t attention_size() const { return model.attention_size(); }
};

// Rows begin..end-1 of LayerNorm((word + token type) + position) to pass.embedded.
void EmbedRows(const Pass& pass, size_t begin, size_t end, Stopwatch& watch);

// Rows begin..end-1 of vectors, [sequences, H]: what the head makes of each sequence's last hidden states; of first
// tokens, their rows are the first ones of hidden (GatherFirstTokens).
void PoolRows(const Pass& pass, size_t begin, size_t end, float* vectors, Stopwatch& watch);

// Moves the row of each sequence's first token to row s, in place: row s never lies behind its source.
inline void GatherFirstTokens(const Pass& pass, void* rows, size_t row_bytes) {
  auto* bytes = static_cast<uint8_t*>(rows);
  for (size_t s = 0; s < pass.group.sequences; ++s) {
    std::memmove(bytes + s * row_bytes, bytes + pass.starts[s] * row_bytes, row_bytes);
  }
}

// Step: what the classifier reads of pooled, [sequences, H], in place: with BP_HEAD_RELU what is positive of it.
template <typename Steps>
void ApplyHead(const Pass& pass, const Steps& steps, float* pooled) {
  if (pass.model.config.head != BP_HEAD_RELU) return;
  const size_t hidden = pass.hidden_size();
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    pass.kernels.activate(Activation::kRelu, pooled + begin * hidden, (end - begin) * hidden);
    watch.Lap(BP_OP_ACTIVATION);
  });
}

// Step: logits = classifier(rows of x).
template <typename Steps>
void Classify(const Pass& pass, const Steps& steps, const float* x, float* logits) {
  steps.Linears({{&pass.model.classifier, x, nullptr, logits, BP_OP_HEAD}});
}

// Step: hidden = LayerNorm(projected + hidden).
template <typename Steps>
void AddAndNormalize(const Pass& pass, const Steps& steps, const float* projected, const Norm& norm) {
  const size_t hidden = pass.hidden_size();
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    float* y = pass.hidden + begin * hidden;
    pass.kernels.layer_norm(projected + begin * hidden, y, end - begin, hidden, norm.weight.data(), norm.bias.data(),
                            pass.model.config.layer_norm_eps, y);
    watch.Lap(BP_OP_LAYER_NORM);
  });
}

// The pass alternates between attention, which needs all tokens of a sequence, and chains of steps that treat each
// token on its own. hidden_states: NULL, or where the group's rows of state 0 go; those of the next state lie `stride`
// floats further.
//
// Layers is ValueLayers or BinaryLayers, which have
//   Project(pass, layer, steps)            query, key and value states of hidden
//   Attend(pass, layer)                    context, a section of its own
//   ProjectForFirst(pass, layer, steps)    what AttendFirst needs of all tokens
//   AttendFirst(pass, layer)               context of each sequence's first token, sequence s in row s as hidden is
//   then Finish(pass, layer, steps)             all that follows attention; hidden becomes the layer's output
//   PoolAndClassify(pass, logits, steps)   logits of the rows of hidden
template <typename Layers>
void RunGroup(const Pass& pass, const Layers& kind, float* logits, float* hidden_states, size_t stride) {
  const std::vector<Layer>& layers = pass.model.layers;
  const size_t hidden = pass.hidden_size();
  const auto run = [&](size_t rows, const auto& chain) {
    RunChain(pass.kernels, pass.team, rows, pass.profile, chain);
  };
  // Step: copies hidden to the rows of state i, where anybody wants them.
  const auto keep = [&](size_t i, const auto& steps) {
    if (hidden_states == nullptr) return;
    float* state = hidden_states + i * stride;
    steps.Rows([&](size_t begin, size_t end, Stopwatch&) {
      std::memcpy(state + begin * hidden, pass.hidden + begin * hidden, (end - begin) * hidden * sizeof(float));
    });
  };
  const bool classifies_tokens = pass.model.classifies_tokens(), reads_first = pass.model.reads_first_tokens();
  // Without hidden states only the first tokens' outputs of the last layer are computed.
  const bool first_only = hidden_states == nullptr && reads_first;
  // Step: the answer of each sequence.
  const auto answer = [&](const auto& steps) {
    if (pass.model.has_pooler()) return kind.PoolAndClassify(pass, logits, steps);
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) { PoolRows(pass, begin, end, logits, watch); });
  };
  const auto project = [&](size_t i, const auto& steps) {
    if (first_only && i + 1 == layers.size()) {
      kind.ProjectForFirst(pass, layers[i], steps);
    } else {
      kind.Project(pass, layers[i], steps);
    }
  };
  run(pass.group.tokens, [&](const auto& steps) {
    steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) { EmbedRows(pass, begin, end, watch); });
    if (pass.model.projects_embeddings()) {
      steps.Linears({{&pass.model.embeddings.projection, pass.embedded, nullptr, pass.hidden, BP_OP_EMBEDDING}});
    }
    keep(0, steps);
    project(0, steps);
  });
  for (size_t i = 0; i + 1 < layers.size(); ++i) {
    kind.Attend(pass, layers[i]);
    run(pass.group.tokens, [&](const auto& steps) {
      kind.Finish(pass, layers[i], steps);
      keep(i + 1, steps);
      project(i + 1, steps);
    });
  }
  const Layer& last = layers.back();
  if (first_only) {
    GatherFirstTokens(pass, pass.hidden, hidden * sizeof(float));
    kind.AttendFirst(pass, last);
    run(pass.group.sequences, [&](const auto& steps) {
      kind.Finish(pass, last, steps);
      answer(steps);
    });
    return;
  }
  kind.Attend(pass, last);
  run(pass.group.tokens, [&](const auto& steps) {
    kind.Finish(pass, last, steps);
    keep(layers.size(), steps);
    if (classifies_tokens) Classify(pass, steps, pass.hidden, logits);
  });
  if (classifies_tokens) return;
  if (reads_first) GatherFirstTokens(pass, pass.hidden, hidden * sizeof(float));
  run(pass.group.sequences, answer);
}

}  // namespace bitpress
