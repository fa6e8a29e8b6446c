// Building blocks of the forward pass, and the two ways to split them over threads.
//
// No value depends on how the work is split: every row of a quantizer or LayerNorm, every output of a linear layer and
// every (sequence, head) is computed by one kernel call whose result depends on nothing else.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/model.h"
#include "engine/profile.h"
#include "engine/thread_pool.h"

namespace bitpress {

// Rows quantized to 8 bits; what an integer linear layer reads.
struct QuantizedRows {
  uint8_t* codes;  // rows x stride, zero past the columns
  size_t stride;
  float* scale;   // [rows]
  float* offset;  // [rows]
};

// One linear layer: reads `codes` where the weights are integers, `x` where they are fp32.
struct LinearCall {
  const Linear* linear;
  const float* x;  // rows x inputs
  const QuantizedRows* codes;
  float* y;  // rows x outputs
  Operation operation;
  const Activation* activation = nullptr;  // applied to y where set

  size_t panels() const { return linear->panels(); }
};

// Rows of bits (kernels/binary_linear).
struct BitRows {
  uint8_t* bits = nullptr;
  size_t stride = 0;  // bytes

  uint8_t* row(size_t i) const { return bits + i * stride; }
};

// Memory for kernels, one piece a thread.
struct ThreadScratch {
  uint8_t* bytes = nullptr;
  size_t stride = 0;

  void* of(size_t thread) const { return bytes + thread * stride; }
};

// One linear layer of a binary model: bits in, and out either numbers or, where the layer has thresholds, bits.
struct BinaryCall {
  const Linear* linear;
  BitRows x;
  float* y;      // rows x outputs, or NULL
  BitRows bits;  // rows x panels * kBitPanel bits
  Operation operation;
  const Activation* activation;  // applied to y where set
  ThreadScratch scratch;

  size_t panels() const { return linear->binary.weights.panels; }
};

// Rows begin..end-1 of all outputs of panels panel_begin..panel_end-1, on that thread.
void RunLinear(const Kernels& kernels, const LinearCall& call, size_t row_begin, size_t row_end, size_t panel_begin,
               size_t panel_end, size_t thread, Stopwatch& watch);
void RunLinear(const Kernels& kernels, const BinaryCall& call, size_t row_begin, size_t row_end, size_t panel_begin,
               size_t panel_end, size_t thread, Stopwatch& watch);

// The rows begin..end-1 of x (dense, cols wide) into `out`, where the point is quantized; nothing where it is not.
void QuantizeInput(const Kernels& kernels, const InputPoint& point, const float* x, size_t cols, size_t begin,
                   size_t end, const QuantizedRows& out, Stopwatch& watch);

// Small enough to give every thread several tasks, so that a thread that starts late or is interrupted does not hold
// up the others; large enough that claiming a task (tens of nanoseconds) does not show.
constexpr size_t kTasksPerThread = 4;

// A chain of steps over rows, each needing all of the preceding one's outputs of its rows but of no other row, is run
// either block of rows by block of rows (one section for the whole chain) or step by step, each step spread over all
// threads (a section a step). Both have the same two functions, so a chain is written once.

// One block of rows on one thread: what a step writes, the next one finds in the core's cache, and no thread waits
// for another until the chain has ended. Every block unpacks all weights, which few rows do not pay for.
class RowBlock {
 public:
  RowBlock(const Kernels& kernels, size_t begin, size_t end, size_t thread, Stopwatch& watch)
      : kernels_(kernels), begin_(begin), end_(end), thread_(thread), watch_(watch) {}

  template <size_t N>
  void Linears(const LinearCall (&calls)[N]) const {
    for (const LinearCall& call : calls) Run(call);
  }
  template <size_t N>
  void Linears(const BinaryCall (&calls)[N]) const {
    for (const BinaryCall& call : calls) Run(call);
  }
  // body(begin, end, watch)
  template <typename Body>
  void Rows(const Body& body) const {
    body(begin_, end_, watch_);
  }

 private:
  template <typename Call>
  void Run(const Call& call) const {
    RunLinear(kernels_, call, begin_, end_, 0, call.panels(), thread_, watch_);
  }

  const Kernels& kernels_;
  size_t begin_, end_, thread_;
  Stopwatch& watch_;
};

// All rows, a section a step: linear layers in pieces of columns, so that each weight is unpacked once.
class AllRows {
 public:
  AllRows(const Kernels& kernels, ThreadTeam& team, size_t rows, Profile* profile)
      : kernels_(kernels), team_(team), rows_(rows), profile_(profile) {}

  // Independent layers, in one section.
  template <size_t N>
  void Linears(const LinearCall (&calls)[N]) const {
    RunLinears(calls, N);
  }
  template <size_t N>
  void Linears(const BinaryCall (&calls)[N]) const {
    RunLinears(calls, N);
  }
  // body(begin, end, watch) over pieces of the rows.
  template <typename Body>
  void Rows(const Body& body) const {
    constexpr size_t kMostRows = 16;  // 16 rows of 768 floats are 48 KB: what one step writes, the next finds in L2
    const size_t tasks = team_.size() * kTasksPerThread;
    const size_t piece = std::clamp<size_t>((rows_ + tasks - 1) / tasks, 1, kMostRows);
    team_.ParallelFor((rows_ + piece - 1) / piece, [&](size_t task, size_t thread) {
      Stopwatch watch(profile_, thread);
      body(task * piece, std::min(rows_, (task + 1) * piece), watch);
    });
  }

 private:
  template <typename Call>
  void RunLinears(const Call* calls, size_t count) const;

  const Kernels& kernels_;
  ThreadTeam& team_;
  size_t rows_;
  Profile* profile_;
};

// Runs a chain over `rows` rows: chain(steps) with steps a RowBlock or AllRows.
template <typename Chain>
void RunChain(const Kernels& kernels, ThreadTeam& team, size_t rows, Profile* profile, const Chain& chain) {
  // Below this a block would unpack each weight for too few rows: unpacking costs as much as multiplying by one to two
  // rows, so at 32 it takes 4 %, about what a section a step costs in waiting.
  constexpr size_t kFewestRows = 32;
  // 64 rows of 3,072 floats are 768 KB, twice an L2, and unpacking is down to 2 %.
  constexpr size_t kMostRows = 64;
  if (rows < kFewestRows * team.size()) return chain(AllRows(kernels, team, rows, profile));
  // As many blocks as threads, or a multiple, of nearly equal size: then all threads end together.
  const size_t rounds = (rows + kMostRows * team.size() - 1) / (kMostRows * team.size());
  const size_t blocks = rounds * team.size();
  team.ParallelFor(blocks, [&](size_t block, size_t thread) {
    Stopwatch watch(profile, thread);
    chain(RowBlock(kernels, rows * block / blocks, rows * (block + 1) / blocks, thread, watch));
  });
}

}  // namespace bitpress
