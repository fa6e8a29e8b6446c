#include "engine/layers.h"

namespace bitpress {
namespace {

// Rows of one linear task: 128 rows of 3,072 codes are 384 KB, which leaves room for a weight panel in an L2 of 512 KB,
// and unpacking a panel is paid by enough rows to show as 1-3 % (each row is 1/100 to 1/150 of it).
constexpr size_t kRowBlock = 128;

// Columns first..last-1 of a layer's outputs through its activation function, where it has one.
void Activate(const Kernels& kernels, const Activation* activation, float* y, size_t rows, size_t outputs, size_t first,
              size_t last, Stopwatch& watch) {
  if (activation == nullptr) return;
  for (size_t r = 0; r < rows; ++r) kernels.activate(*activation, y + r * outputs + first, last - first);
  watch.Lap(BP_OP_ACTIVATION);
}

}  // namespace

void RunLinear(const Kernels& kernels, const LinearCall& call, size_t row_begin, size_t row_end, size_t panel_begin,
               size_t panel_end, size_t, Stopwatch& watch) {
  const Linear& linear = *call.linear;
  const size_t rows = row_end - row_begin;
  float* y = call.y + row_begin * linear.outputs;
  if (linear.is_integer) {
    const QuantizedRows& a = *call.codes;
    kernels.integer_linear(a.codes + row_begin * a.stride, a.stride, a.scale + row_begin, a.offset + row_begin, rows,
                           linear.integer, panel_begin, panel_end, y, linear.outputs);
  } else {
    kernels.float_linear(call.x + row_begin * linear.inputs, linear.inputs, rows, linear.dense, panel_begin, panel_end,
                         y, linear.outputs);
  }
  watch.Lap(call.operation);
  Activate(kernels, call.activation, y, rows, linear.outputs, panel_begin * linear.panel_columns(),
           std::min(panel_end * linear.panel_columns(), linear.outputs), watch);
}

void RunLinear(const Kernels& kernels, const BinaryCall& call, size_t row_begin, size_t row_end, size_t panel_begin,
               size_t panel_end, size_t thread, Stopwatch& watch) {
  const Linear& linear = *call.linear;
  const BinaryLinear& binary = linear.binary;
  const size_t rows = row_end - row_begin;
  const BinaryInput x = {call.x.row(row_begin), call.x.stride, rows, binary.input_set};
  if (call.y == nullptr) {
    kernels.binary_linear_bits(x, binary.weights, binary.thresholds, panel_begin, panel_end, call.bits.row(row_begin),
                               call.bits.stride, call.scratch.of(thread));
    watch.Lap(call.operation);
    return;
  }
  float* y = call.y + row_begin * linear.outputs;
  kernels.binary_linear_float(x, binary.weights, binary.affine, panel_begin, panel_end, y, linear.outputs,
                              call.scratch.of(thread));
  watch.Lap(call.operation);
  Activate(kernels, call.activation, y, rows, linear.outputs, panel_begin * kBitPanel,
           std::min(panel_end * kBitPanel, linear.outputs), watch);
}

void QuantizeInput(const Kernels& kernels, const InputPoint& point, const float* x, size_t cols, size_t begin,
                   size_t end, const QuantizedRows& out, Stopwatch& watch) {
  if (!point.quantized) return;
  kernels.quantize_rows(x + begin * cols, cols, end - begin, cols, point.spec, out.codes + begin * out.stride,
                        out.stride, out.scale + begin, out.offset + begin, nullptr);
  watch.Lap(BP_OP_QUANTIZE);
}

template <typename Call>
void AllRows::RunLinears(const Call* calls, size_t count) const {
  const size_t row_blocks = (rows_ + kRowBlock - 1) / kRowBlock;
  const size_t block = (rows_ + row_blocks - 1) / row_blocks;
  // Column pieces of each layer: whole panels, so that no two tasks write the same output.
  const size_t wanted_tasks = team_.size() * kTasksPerThread;
  const size_t pieces = (wanted_tasks + row_blocks * count - 1) / (row_blocks * count);
  team_.ParallelFor(count * row_blocks * pieces, [&](size_t task, size_t thread) {
    const Call& call = calls[task / (row_blocks * pieces)];
    const size_t row_begin = task / pieces % row_blocks * block, row_end = std::min(rows_, row_begin + block);
    const size_t panels = call.panels(), piece = task % pieces;
    const size_t panel_begin = panels * piece / pieces, panel_end = panels * (piece + 1) / pieces;
    if (row_begin >= row_end || panel_begin >= panel_end) return;
    Stopwatch watch(profile_, thread);
    RunLinear(kernels_, call, row_begin, row_end, panel_begin, panel_end, thread, watch);
  });
}
template void AllRows::RunLinears(const LinearCall*, size_t) const;
template void AllRows::RunLinears(const BinaryCall*, size_t) const;

}  // namespace bitpress
