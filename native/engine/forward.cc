#include "engine/forward.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/binary_layers.h"
#include "engine/pass.h"
#include "engine/value_layers.h"

namespace bitpress {
namespace {

// A batch is run in groups of whole sequences of about this many tokens: enough rows for every kernel, while a call's
// memory stays bounded (31 MB for BERT-base, 7 MB where it is binary) however large the batch. Results do not depend on
// the grouping.
constexpr size_t kGroupTokens = 1024;

// The number of sequences from `first` on that make up one group, at least one, and their tokens.
size_t GroupSize(const Batch& batch, size_t first, size_t* tokens) {
  size_t last = first + 1;
  *tokens = batch.lengths[first];
  while (last < batch.sequences && *tokens + batch.lengths[last] <= kGroupTokens) *tokens += batch.lengths[last++];
  return last - first;
}

Extent LargestGroup(const Batch& batch, size_t threads) {
  Extent extent{0, 0, 0, threads};
  for (size_t s = 0, tokens; s < batch.sequences;) {
    const size_t sequences = GroupSize(batch, s, &tokens);
    extent.tokens = std::max(extent.tokens, tokens);
    extent.sequences = std::max(extent.sequences, sequences);
    s += sequences;
  }
  for (size_t s = 0; s < batch.sequences; ++s) extent.longest = std::max<size_t>(extent.longest, batch.lengths[s]);
  return extent;
}

// Buffers that every kind of layers has, and those of its own.
template <typename Layers>
struct Buffers {
  Buffers(Arena& arena, const Model& model, const Extent& extent)
      : hidden(arena.Take<float>(extent.tokens * model.config.hidden_size)),
        embedded(model.projects_embeddings() ? arena.Take<float>(extent.tokens * model.config.embedding_size) : hidden),
        starts(arena.Take<size_t>(extent.sequences)),
        positions(arena.Take<uint32_t>(extent.tokens)),
        layers(arena, model, extent) {}

  float* hidden;
  float* embedded;
  size_t* starts;
  uint32_t* positions;
  Layers layers;
};

// Where each sequence starts, and each token's position in its own.
void LocateTokens(const Batch& group, size_t* starts, uint32_t* positions) {
  for (size_t s = 0, token = 0; s < group.sequences; ++s) {
    starts[s] = token;
    for (uint32_t position = 0; position < group.lengths[s]; ++position) positions[token++] = position;
  }
}

template <typename Layers>
void RunGroups(const Model& model, Workspace& workspace, ThreadTeam& team, Profile* profile, const Batch& batch,
               float* logits, float* hidden_states) {
  const Extent extent = LargestGroup(batch, team.size());
  Arena measure(nullptr);
  Buffers<Layers>(measure, model, extent);
  Arena arena(workspace.Reserve(measure.used()));
  const Buffers<Layers> b(arena, model, extent);
  const size_t hidden = model.config.hidden_size;
  for (size_t s = 0, first = 0, tokens; s < batch.sequences; first += tokens) {
    const size_t sequences = GroupSize(batch, s, &tokens);
    const Batch group = {batch.ids + first, batch.type_ids == nullptr ? nullptr : batch.type_ids + first,
                         batch.lengths + s, sequences, tokens};
    LocateTokens(group, b.starts, b.positions);
    const size_t rows_before = model.classifies_tokens() ? first : s;
    RunGroup(Pass{model, *model.kernels, team, profile, group, b.hidden, b.embedded, b.starts, b.positions}, b.layers,
             logits + rows_before * model.config.num_labels,
             hidden_states == nullptr ? nullptr : hidden_states + first * hidden, batch.tokens * hidden);
    s += sequences;
  }
}

}  // namespace

void Forward(const Model& model, WorkspaceCache& workspaces, const Batch& batch, float* logits, float* hidden_states,
             size_t threads, uint64_t* nanoseconds) {
  const auto start = std::chrono::steady_clock::now();
  ThreadTeam team(threads);
  std::optional<Profile> profile;
  if (nanoseconds != nullptr) profile.emplace(team.size());
  std::unique_ptr<Workspace> workspace = workspaces.Borrow();
  const auto run = model.is_binary() ? RunGroups<BinaryLayers> : RunGroups<ValueLayers>;
  run(model, *workspace, team, profile ? &*profile : nullptr, batch, logits, hidden_states);
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
