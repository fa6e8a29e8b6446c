// Runs a batch through a model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model.h"
#include "engine/workspace.h"

namespace bitpress {

// B sequences one after another, without padding; checked against the model by the caller.
struct Batch {
  const int32_t* ids;       // [N]
  const int32_t* type_ids;  // [N], or NULL: all 0
  const uint32_t* lengths;  // [B]
  size_t sequences;         // B
  size_t tokens;            // N
};

// logits: B x C, or N x C where the model classifies tokens. hidden_states: NULL or (L+1) x N x H. threads: 0 = all
// processors. nanoseconds: NULL, or BP_OPERATIONS times summed over threads. Throws std::bad_alloc.
void Forward(const Model& model, WorkspaceCache& workspaces, const Batch& batch, float* logits, float* hidden_states,
             size_t threads, uint64_t* nanoseconds);

}  // namespace bitpress
