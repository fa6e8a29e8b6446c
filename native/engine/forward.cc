#include "engine/forward.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

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
  QuantizedRows hidden_codes, intermediate_codes;  // share scale and offset: of a row never both alive
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
  float* scale = arena.Take<float>(tokens);
  float* offset = arena.Take<float>(tokens);
  const auto take_codes = [&](size_t stride) {
    return QuantizedRows{arena.Take<uint8_t>(tokens * stride), stride, scale, offset};
  };
  b.hidden_codes = take_codes(model.hidden_code_stride);
  b.intermediate_codes = take_codes(model.intermediate_code_stride);
  b.attention_scratch_stride = RoundUp(AttentionScratchBytes(longest, model.head_size()), kAlignment);
  b.attention_scratch = arena.Take<uint8_t>(b.attention_scratch_stride * threads);
  return b;
}

// One group on its way through the model.
struct Pass {
  const Model& model;
  const Kernels& kernels;
  ThreadTeam& team;
  Profile* profile;  // NULL: nobody asked
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
  const size_t group_cols = e.word_packed.group_inputs, groups = (hidden + group_cols - 1) / group_cols;
  size_t group = word / e.word_packed.group_rows * groups;
  if (format.scheme == CodeScheme::kTernary) {  // one scale a row, or for more rows
    const float scale = e.word_scale[group];
    (format.trits ? pass.kernels.decode_trits_row : pass.kernels.decode_two_bit_row)(codes, hidden, scale, row);
    return;
  }
  const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
  for (size_t begin = 0; begin < hidden; begin += group_cols, ++group) {
    const size_t cols = std::min(group_cols, hidden - begin);
    const float offset = format.symmetric ? 0.0f : e.word_offset[group];
    // A group begins on a byte: it is a multiple of 32 codes.
    pass.kernels.decode_uniform_row(codes + begin * format.bits / 8, cols, format.bits, zero, e.word_scale[group],
                                    offset, row + begin);
  }
}

// Where each sequence starts, and each token's position in its own.
void LocateTokens(const Pass& pass) {
  for (size_t s = 0, token = 0; s < pass.group.sequences; ++s) {
    pass.b.starts[s] = token;
    for (uint32_t position = 0; position < pass.group.lengths[s]; ++position) pass.b.positions[token++] = position;
  }
}

// Step: hidden = LayerNorm((word + token type) + position).
template <typename Steps>
void Embed(const Pass& pass, const Steps& steps) {
  const Embeddings& e = pass.model.embeddings;
  const size_t hidden = pass.model.config.hidden_size;
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    for (size_t i = begin; i < end; ++i) {
      float* row = pass.b.hidden + i * hidden;
      const size_t type = pass.group.type_ids == nullptr ? 0 : static_cast<size_t>(pass.group.type_ids[i]);
      DecodeWord(pass, pass.group.ids[i], row);
      pass.kernels.add_rows(e.token_type.data() + type * hidden, e.position.data() + pass.b.positions[i] * hidden,
                            hidden, row);
    }
    watch.Lap(BP_OP_EMBEDDING);
    float* rows = pass.b.hidden + begin * hidden;
    pass.kernels.layer_norm(rows, nullptr, end - begin, hidden, e.norm.weight.data(), e.norm.bias.data(),
                            pass.model.config.layer_norm_eps, rows);
    watch.Lap(BP_OP_LAYER_NORM);
  });
}

// Step: quantizes hidden for the projections of `layer`.
template <typename Steps>
void QuantizeForAttention(const Pass& pass, const Layer& layer, const Steps& steps) {
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    QuantizeInput(pass.kernels, layer.attention_input, pass.b.hidden, pass.model.config.hidden_size, begin, end,
                  pass.b.hidden_codes, watch);
  });
}

// Steps: query, key and value states of hidden.
template <typename Steps>
void Project(const Pass& pass, const Layer& layer, const Steps& steps) {
  const Buffers& b = pass.b;
  QuantizeForAttention(pass, layer, steps);
  steps.Linears({{&layer.query, b.hidden, &b.hidden_codes, b.query, BP_OP_QUERY_KEY_VALUE},
                 {&layer.key, b.hidden, &b.hidden_codes, b.key, BP_OP_QUERY_KEY_VALUE},
                 {&layer.value, b.hidden, &b.hidden_codes, b.value, BP_OP_QUERY_KEY_VALUE}});
}

// The same without the query states.
template <typename Steps>
void ProjectKeysAndValues(const Pass& pass, const Layer& layer, const Steps& steps) {
  const Buffers& b = pass.b;
  QuantizeForAttention(pass, layer, steps);
  steps.Linears({{&layer.key, b.hidden, &b.hidden_codes, b.key, BP_OP_QUERY_KEY_VALUE},
                 {&layer.value, b.hidden, &b.hidden_codes, b.value, BP_OP_QUERY_KEY_VALUE}});
}

// The query states alone.
template <typename Steps>
void ProjectQueries(const Pass& pass, const Layer& layer, const Steps& steps) {
  QuantizeForAttention(pass, layer, steps);
  steps.Linears({{&layer.query, pass.b.hidden, &pass.b.hidden_codes, pass.b.query, BP_OP_QUERY_KEY_VALUE}});
}

// Which queries attend: those of all tokens, or of each sequence's first token, whose query and context are row s.
enum class Queries { kAll, kFirst };

// context = attention of each (sequence, head).
void Attend(const Pass& pass, const Layer& layer, Queries queries) {
  const size_t hidden = pass.model.config.hidden_size, heads = pass.model.config.num_heads;
  const size_t head_size = pass.model.head_size();
  pass.team.ParallelFor(pass.group.sequences * heads, [&](size_t task, size_t thread) {
    Stopwatch watch(pass.profile, thread);
    const size_t sequence = task / heads, column = task % heads * head_size, tokens = pass.group.lengths[sequence];
    const bool all = queries == Queries::kAll;
    const size_t keys = pass.b.starts[sequence] * hidden + column, row = all ? keys : sequence * hidden + column;
    const AttentionHead head = {
        pass.b.query + row, pass.b.key + keys, pass.b.value + keys, hidden, pass.b.context + row, hidden, tokens,
        head_size,          all ? tokens : 1};
    void* scratch = pass.b.attention_scratch + thread * pass.b.attention_scratch_stride;
    if (pass.model.uint8_attention) {
      pass.kernels.attention_uint8(head, layer.attention, scratch);
    } else {
      pass.kernels.attention_float(head, scratch);
    }
    watch.Lap(BP_OP_ATTENTION);
  });
}

// Step: quantizes x for `point`, runs `linear` to `projected` and sets hidden = LayerNorm(projected + hidden).
template <typename Steps>
void AddSublayer(const Pass& pass, const Steps& steps, const InputPoint& point, const float* x, size_t cols,
                 const QuantizedRows& codes, const Linear& linear, Operation operation, const Norm& norm) {
  const size_t hidden = pass.model.config.hidden_size;
  float* projected = pass.b.query;  // the query states are no longer needed
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    QuantizeInput(pass.kernels, point, x, cols, begin, end, codes, watch);
  });
  steps.Linears({{&linear, x, &codes, projected, operation}});
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    float* y = pass.b.hidden + begin * hidden;
    pass.kernels.layer_norm(projected + begin * hidden, y, end - begin, hidden, norm.weight.data(), norm.bias.data(),
                            pass.model.config.layer_norm_eps, y);
    watch.Lap(BP_OP_LAYER_NORM);
  });
}

// Steps: all of a layer that follows attention; hidden becomes the layer's output.
template <typename Steps>
void FinishLayer(const Pass& pass, const Layer& layer, const Steps& steps) {
  const Buffers& b = pass.b;
  const size_t hidden = pass.model.config.hidden_size;
  AddSublayer(pass, steps, layer.context, b.context, hidden, b.hidden_codes, layer.attention_output,
              BP_OP_ATTENTION_OUTPUT, layer.attention_norm);
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    QuantizeInput(pass.kernels, layer.ffn_input, b.hidden, hidden, begin, end, b.hidden_codes, watch);
  });
  steps.Linears(
      {{&layer.intermediate, b.hidden, &b.hidden_codes, b.intermediate, BP_OP_FFN_UP, &pass.model.activation}});
  AddSublayer(pass, steps, layer.ffn_activation, b.intermediate, pass.model.config.intermediate_size,
              b.intermediate_codes, layer.ffn_output, BP_OP_FFN_DOWN, layer.ffn_norm);
}

// Steps: logits = classifier(tanh(pooler(rows of hidden))).
template <typename Steps>
void PoolAndClassify(const Pass& pass, float* logits, const Steps& steps) {
  static constexpr Activation kTanh = Activation::kTanh;
  const Buffers& b = pass.b;
  steps.Rows([&](size_t begin, size_t end, Stopwatch& watch) {
    QuantizeInput(pass.kernels, pass.model.pooler_input, b.hidden, pass.model.config.hidden_size, begin, end,
                  b.hidden_codes, watch);
  });
  steps.Linears({{&pass.model.pooler, b.hidden, &b.hidden_codes, b.query, BP_OP_HEAD, &kTanh}});
  steps.Linears({{&pass.model.classifier, b.query, nullptr, logits, BP_OP_HEAD}});
}

// Moves the hidden state of each sequence's first token to row s: row s never lies behind its source.
void GatherFirstTokens(const Pass& pass) {
  const size_t hidden = pass.model.config.hidden_size;
  float* x = pass.b.hidden;
  for (size_t s = 0; s < pass.group.sequences; ++s) {
    std::memmove(x + s * hidden, x + pass.b.starts[s] * hidden, hidden * sizeof(float));
  }
}

// Step: copies hidden to the rows of `state`, where anybody wants them.
template <typename Steps>
void Keep(const Pass& pass, float* state, const Steps& steps) {
  if (state == nullptr) return;
  const size_t hidden = pass.model.config.hidden_size;
  steps.Rows([&](size_t begin, size_t end, Stopwatch&) {
    std::memcpy(state + begin * hidden, pass.b.hidden + begin * hidden, (end - begin) * hidden * sizeof(float));
  });
}

// The pass alternates between attention, which needs all tokens of a sequence, and chains of steps that treat each
// token on its own. hidden_states: NULL, or where the group's rows of state 0 go; those of the next state lie `stride`
// floats further.
void RunGroup(const Pass& pass, float* logits, float* hidden_states, size_t stride) {
  const std::vector<Layer>& layers = pass.model.layers;
  const auto state = [&](size_t i) { return hidden_states == nullptr ? nullptr : hidden_states + i * stride; };
  const auto run = [&](size_t rows, const auto& chain) {
    RunChain(pass.kernels, pass.team, rows, pass.profile, chain);
  };
  const Layer& last = layers.back();
  // Without hidden states only the first tokens' outputs of the last layer are read.
  const bool first_only = hidden_states == nullptr;
  // Steps: what layer i needs before its attention.
  const auto project = [&](size_t i, const auto& steps) {
    if (first_only && i + 1 == layers.size()) {
      ProjectKeysAndValues(pass, last, steps);
    } else {
      Project(pass, layers[i], steps);
    }
  };
  LocateTokens(pass);
  run(pass.group.tokens, [&](const auto& steps) {
    Embed(pass, steps);
    Keep(pass, state(0), steps);
    project(0, steps);
  });
  for (size_t i = 0; i + 1 < layers.size(); ++i) {
    Attend(pass, layers[i], Queries::kAll);
    run(pass.group.tokens, [&](const auto& steps) {
      FinishLayer(pass, layers[i], steps);
      Keep(pass, state(i + 1), steps);
      project(i + 1, steps);
    });
  }
  if (first_only) {
    GatherFirstTokens(pass);
    run(pass.group.sequences, [&](const auto& steps) { ProjectQueries(pass, last, steps); });
    Attend(pass, last, Queries::kFirst);
    run(pass.group.sequences, [&](const auto& steps) {
      FinishLayer(pass, last, steps);
      PoolAndClassify(pass, logits, steps);
    });
    return;
  }
  Attend(pass, last, Queries::kAll);
  run(pass.group.tokens, [&](const auto& steps) {
    FinishLayer(pass, last, steps);
    Keep(pass, state(layers.size()), steps);
  });
  GatherFirstTokens(pass);
  run(pass.group.sequences, [&](const auto& steps) { PoolAndClassify(pass, logits, steps); });
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
             size_t threads, uint64_t* nanoseconds) {
  const auto start = std::chrono::steady_clock::now();
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
  std::optional<Profile> profile;
  if (nanoseconds != nullptr) profile.emplace(team.size());

  const size_t hidden = model.config.hidden_size;
  for (size_t s = 0, first = 0, tokens; s < batch.sequences; first += tokens) {
    const size_t sequences = GroupSize(batch, s, &tokens);
    const Batch group = {batch.ids + first, batch.type_ids == nullptr ? nullptr : batch.type_ids + first,
                         batch.lengths + s, sequences, tokens};
    RunGroup({model, *model.kernels, team, profile ? &*profile : nullptr, group, buffers},
             logits + s * model.config.num_labels, hidden_states == nullptr ? nullptr : hidden_states + first * hidden,
             batch.tokens * hidden);
    s += sequences;
  }
  workspaces.Return(std::move(workspace));
  if (nanoseconds == nullptr) return;
  const auto wall = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start);
  uint64_t busy = 0;
  for (int operation = 0; operation < BP_OP_WAITING; ++operation) {
    busy += nanoseconds[operation] = profile->Total(static_cast<Operation>(operation));
  }
  const uint64_t all = static_cast<uint64_t>(wall.count()) * team.size();
  nanoseconds[BP_OP_WAITING] = all > busy ? all - busy : 0;
}

}  // namespace bitpress
