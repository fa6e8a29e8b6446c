// Building blocks of the forward pass: each is one parallel section over rows, column panels or heads.
//
// No value depends on how a section is split: every row of a quantizer or LayerNorm, every output of a linear layer and
// every (sequence, head) is computed by one kernel call whose result depends on nothing else.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "engine/thread_pool.h"

namespace bitpress {

// Rows quantized to 8 bits; what an integer linear layer reads.
struct QuantizedRows {
  uint8_t* codes;  // rows x stride, zero past the columns
  size_t stride;
  float* scale;   // [rows]
  float* offset;  // [rows]
};

// One linear layer on `rows` rows: reads `codes` where the weights are integers, `x` where they are fp32.
struct LinearCall {
  const Linear* linear;
  const float* x;  // rows x inputs
  const QuantizedRows* codes;
  float* y;                                // rows x outputs
  const Activation* activation = nullptr;  // applied to y where set
};

// Small enough to give every thread several tasks, so that a thread that starts late or is interrupted does not hold
// up the others; large enough that claiming a task (tens of nanoseconds) does not show.
constexpr size_t kTasksPerThread = 4;

// Calls body(begin, end) over 0..rows-1 in pieces.
template <typename Body>
void ParallelRows(ThreadTeam& team, size_t rows, const Body& body) {
  constexpr size_t kMostRows = 16;  // 16 rows of 768 floats are 48 KB: what one step writes, the next finds in L2
  const size_t tasks = team.size() * kTasksPerThread;
  const size_t piece = std::clamp<size_t>((rows + tasks - 1) / tasks, 1, kMostRows);
  team.ParallelFor((rows + piece - 1) / piece,
                   [&](size_t task, size_t) { body(task * piece, std::min(rows, (task + 1) * piece)); });
}

// Independent linear layers on the same number of rows, in one section.
void RunLinears(ThreadTeam& team, const Kernels& kernels, const LinearCall* calls, size_t count, size_t rows);

// The rows begin..end-1 of x (dense, cols wide) into `out`, where the point is quantized; nothing where it is not.
void QuantizeInput(const Kernels& kernels, const InputPoint& point, const float* x, size_t cols, size_t begin,
                   size_t end, const QuantizedRows& out);

}  // namespace bitpress
