#include "engine/forward.h"

#include <algorithm>
#include <cstring>

#include "engine/layers.h"
#include "engine/thread_pool.h"

namespace bitpress {
namespace {

// A batch is run in groups of whole sequences of about this many tokens: enough rows for every kernel, while a call's
// memory stays bounded (31 MB for BERT-base) however large the batch. Results do not depend on the grouping.
constexpr size_t kGroupTokens = 1024;

// Memory of one group of at most `tokens` tokens in `sequences` sequences.
struct Buffers {
  float *hidden, *query, *key, *value, *context;   // [tokens, H]
  float* intermediate;                             // [tokens, I]
  size_t* starts;                                  // [sequences]: first token of each
  uint32_t* positions;                             // [tokens]
  QuantizedRows hidden_codes, intermediate_codes;  // share their memory: never alive at once
  uint8_t* attention_scratch;                      // one piece a thread
  size_t attention_scratch_stride;
};

Buffers Carve(Arena& arena, const Model& model, size_t tokens, size_t sequences, size_t longest, size_t threads) {
  const size_t hidden = model.config.hidden_size;
  Buffers b;
  b.hidden = arena.Take<float>(tokens * hidden);
  b.query = arena.Take<float>(tokens * hidden);
  b.key = arena.Take<float>(tokens * hidden);
  b.value = arena.Take<float>(tokens * hidden);
  b.context = arena.Take<float>(tokens * hidden);
  b.intermediate = arena.Take<float>(tokens * model.config.intermediate_size);
  b.starts = arena.Take<size_t>(sequences);
  b.positions = arena.Take<uint32_t>(tokens);
  uint8_t* codes = arena.Take<uint8_t>(tokens * std::max(model.hidden_code_stride, model.intermediate_code_stride));
  float* scale = arena.Take<float>(tokens);
  float* offset = arena.Take<float>(tokens);
  b.hidden_codes = {codes, model.hidden_code_stride, scale, offset};
  b.intermediate_codes = {codes, model.intermediate_code_stride, scale, offset};
  b.attention_scratch_stride = RoundUp(AttentionScratchBytes(longest, model.head_size()), kAlignment);
  b.attention_scratch = arena.Take<uint8_t>(b.attention_scratch_stride * threads);
  return b;
}

// One group on its way through the model.
struct Pass {
  const Model& model;
  const Kernels& kernels;
  ThreadTeam& team;
  const Batch& group;
  const Buffers& b;
};

void DecodeWord(const Pass& pass, int32_t id, float* row) {
  const Embeddings& e = pass.model.embeddings;
  const size_t hidden = pass.model.config.hidden_size, word = static_cast<size_t>(id);
  if (e.word_packed.codes == nullptr) {
    std::memcpy(row, e.word.data() + word * hidden, hidden * sizeof(float));
    return;
  }
  const CodeFormat& format = e.word_packed.format;
  const uint8_t* codes = e.word_packed.codes + word * PackedRowBytes(format, hidden);
  const size_t group = word / e.word_packed.group_rows;
  const float scale = e.word_scale[group];
  if (format.scheme == CodeScheme::kUniform) {
    const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
    const float offset = format.symmetric ? 0.0f : e.word_offset[group];
    pass.kernels.decode_uniform_row(codes, hidden, format.bits, zero, scale, offset, row);
  } else {
    (format.trits ? pass.kernels.decode_trits_row : pass.kernels.decode_two_bit_row)(codes, hidden, scale, row);
  }
}

// hidden = LayerNorm((word + token type) + position), quantized for the first layer.
void Embed(const Pass& pass) {
  const Embeddings& e = pass.model.embeddings;
  const size_t hidden = pass.model.config.hidden_size;
  for (size_t s = 0, token = 0; s < pass.group.sequences; ++s) {
    pass.b.starts[s] = token;
    for (uint32_t position = 0; position < pass.group.lengths[s]; ++position) pass.b.positions[token++] = position;
  }
  ParallelRows(pass.team, pass.group.tokens, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      float* row = pass.b.hidden + i * hidden;
      const size_t type = pass.group.type_ids == nullptr ? 0 : static_cast<size_t>(pass.group.type_ids[i]);
      DecodeWord(pass, pass.group.ids[i], row);
      pass.kernels.add_rows(e.token_type.data() + type * hidden, e.position.data() + pass.b.positions[i] * hidden,
                            hidden, row);
    }
    float* rows = pass.b.hidden + begin * hidden;
    pass.kernels.layer_norm(rows, nullptr, end - begin, hidden, e.norm.weight.data(), e.norm.bias.data(),
                            pass.model.config.layer_norm_eps, rows);
    QuantizeInput(pass.kernels, pass.model.layers[0].attention_input, pass.b.hidden, hidden, begin, end,
                  pass.b.hidden_codes);
  });
}

// hidden = LayerNorm(x + hidden), quantized for `next`.
void AddAndNormalize(const Pass& pass, size_t rows, const float* x, const Norm& norm, const InputPoint& next) {
  const size_t hidden = pass.model.config.hidden_size;
  ParallelRows(pass.team, rows, [&](size_t begin, size_t end) {
    float* y = pass.b.hidden + begin * hidden;
    pass.kernels.layer_norm(x + begin * hidden, y, end - begin, hidden, norm.weight.data(), norm.bias.data(),
                            pass.model.config.layer_norm_eps, y);
    QuantizeInput(pass.kernels, next, pass.b.hidden, hidden, begin, end, pass.b.hidden_codes);
  });
}

// context = attention of each (sequence, head).
void Attend(const Pass& pass, const Layer& layer) {
  const size_t hidden = pass.model.config.hidden_size, heads = pass.model.config.num_heads;
  const size_t head_size = pass.model.head_size();
  pass.team.ParallelFor(pass.group.sequences * heads, [&](size_t task, size_t thread) {
    const size_t sequence = task / heads, first = pass.b.starts[sequence] * hidden + task % heads * head_size;
    const AttentionHead head = {
        pass.b.query + first,         pass.b.key + first, pass.b.value + first, hidden, pass.b.context + first, hidden,
        pass.group.lengths[sequence], head_size};
    void* scratch = pass.b.attention_scratch + thread * pass.b.attention_scratch_stride;
    if (pass.model.uint8_attention) {
      pass.kernels.attention_uint8(head, layer.attention, scratch);
    } else {
      pass.kernels.attention_float(head, scratch);
    }
  });
}

// Moves the row of each sequence's first token to row s, in place: row s never lies behind its source.
void GatherFirstTokens(const Pass& pass, float* x) {
  const size_t hidden = pass.model.config.hidden_size;
  for (size_t s = 0; s < pass.group.sequences; ++s) {
    std::memmove(x + s * hidden, x + pass.b.starts[s] * hidden, hidden * sizeof(float));
  }
}

// One encoder layer; its input rows are in hidden and, where needed, hidden_codes, and so are its output rows.
// first_tokens_only: of the last layer only the first tokens' outputs are read, so after attention the rest is dropped.
void RunLayer(const Pass& pass, const Layer& layer, const InputPoint& next, bool first_tokens_only) {
  const Buffers& b = pass.b;
  const size_t hidden = pass.model.config.hidden_size, intermediate = pass.model.config.intermediate_size;
  size_t rows = pass.group.tokens;

  const LinearCall projections[] = {{&layer.query, b.hidden, &b.hidden_codes, b.query},
                                    {&layer.key, b.hidden, &b.hidden_codes, b.key},
                                    {&layer.value, b.hidden, &b.hidden_codes, b.value}};
  RunLinears(pass.team, pass.kernels, projections, 3, rows);
  Attend(pass, layer);
  if (first_tokens_only) {
    GatherFirstTokens(pass, b.context);
    GatherFirstTokens(pass, b.hidden);
    rows = pass.group.sequences;
  }

  ParallelRows(pass.team, rows, [&](size_t begin, size_t end) {
    QuantizeInput(pass.kernels, layer.context, b.context, hidden, begin, end, b.hidden_codes);
  });
  float* projected = b.query;  // the query states are no longer needed
  const LinearCall output = {&layer.attention_output, b.context, &b.hidden_codes, projected};
  RunLinears(pass.team, pass.kernels, &output, 1, rows);
  AddAndNormalize(pass, rows, projected, layer.attention_norm, layer.ffn_input);

  const LinearCall up = {&layer.intermediate, b.hidden, &b.hidden_codes, b.intermediate, &pass.model.activation};
  RunLinears(pass.team, pass.kernels, &up, 1, rows);
  ParallelRows(pass.team, rows, [&](size_t begin, size_t end) {
    QuantizeInput(pass.kernels, layer.ffn_activation, b.intermediate, intermediate, begin, end, b.intermediate_codes);
  });
  const LinearCall down = {&layer.ffn_output, b.intermediate, &b.intermediate_codes, projected};
  RunLinears(pass.team, pass.kernels, &down, 1, rows);
  AddAndNormalize(pass, rows, projected, layer.ffn_norm, next);
}

// logits = classifier(tanh(pooler(first tokens))); the first tokens are rows 0..sequences-1 of hidden.
void PoolAndClassify(const Pass& pass, float* logits) {
  static constexpr Activation kTanh = Activation::kTanh;
  const Buffers& b = pass.b;
  const size_t hidden = pass.model.config.hidden_size, rows = pass.group.sequences;
  ParallelRows(pass.team, rows, [&](size_t begin, size_t end) {
    QuantizeInput(pass.kernels, pass.model.pooler_input, b.hidden, hidden, begin, end, b.hidden_codes);
  });
  const LinearCall pooler = {&pass.model.pooler, b.hidden, &b.hidden_codes, b.query, &kTanh};
  RunLinears(pass.team, pass.kernels, &pooler, 1, rows);
  const LinearCall classifier = {&pass.model.classifier, b.query, nullptr, logits};
  RunLinears(pass.team, pass.kernels, &classifier, 1, rows);
}

// hidden_states: NULL, or where the group's rows of state 0 go; those of the next state lie `stride` floats further.
void RunGroup(const Pass& pass, float* logits, float* hidden_states, size_t stride) {
  static const InputPoint kNotQuantized;
  const size_t num_layers = pass.model.layers.size();
  const auto keep = [&](size_t state) {
    if (hidden_states == nullptr) return;
    std::memcpy(hidden_states + state * stride, pass.b.hidden,
                pass.group.tokens * pass.model.config.hidden_size * sizeof(float));
  };
  Embed(pass);
  keep(0);
  for (size_t i = 0; i < num_layers; ++i) {
    const bool last = i + 1 == num_layers;
    const InputPoint& next = last ? kNotQuantized : pass.model.layers[i + 1].attention_input;
    RunLayer(pass, pass.model.layers[i], next, last && hidden_states == nullptr);
    keep(i + 1);
  }
  if (hidden_states != nullptr) GatherFirstTokens(pass, pass.b.hidden);
  PoolAndClassify(pass, logits);
}

// The number of sequences from `first` on that make up one group, at least one, and their tokens.
size_t GroupSize(const Batch& batch, size_t first, size_t* tokens) {
  size_t last = first + 1;
  *tokens = batch.lengths[first];
  while (last < batch.sequences && *tokens + batch.lengths[last] <= kGroupTokens) *tokens += batch.lengths[last++];
  return last - first;
}

}  // namespace

void Forward(const Model& model, WorkspaceCache& workspaces, const Batch& batch, float* logits, float* hidden_states,
             size_t threads) {
  size_t most_tokens = 0, most_sequences = 0, longest = 0;
  for (size_t s = 0, tokens; s < batch.sequences;) {
    const size_t sequences = GroupSize(batch, s, &tokens);
    most_tokens = std::max(most_tokens, tokens);
    most_sequences = std::max(most_sequences, sequences);
    s += sequences;
  }
  for (size_t s = 0; s < batch.sequences; ++s) longest = std::max<size_t>(longest, batch.lengths[s]);

  ThreadTeam team(threads);
  Arena measure(nullptr);
  Carve(measure, model, most_tokens, most_sequences, longest, team.size());
  std::unique_ptr<Workspace> workspace = workspaces.Borrow();
  Arena arena(workspace->Reserve(measure.used()));
  const Buffers buffers = Carve(arena, model, most_tokens, most_sequences, longest, team.size());

  const size_t hidden = model.config.hidden_size;
  for (size_t s = 0, first = 0, tokens; s < batch.sequences; first += tokens) {
    const size_t sequences = GroupSize(batch, s, &tokens);
    const Batch group = {batch.ids + first, batch.type_ids == nullptr ? nullptr : batch.type_ids + first,
                         batch.lengths + s, sequences, tokens};
    RunGroup({model, *model.kernels, team, group, buffers}, logits + s * model.config.num_labels,
             hidden_states == nullptr ? nullptr : hidden_states + first * hidden, batch.tokens * hidden);
    s += sequences;
  }
  workspaces.Return(std::move(workspace));
}

}  // namespace bitpress
