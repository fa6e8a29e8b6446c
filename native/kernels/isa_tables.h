// What dispatch.cc chooses from: the kernels of each family of CPUs, in a file of its own.
#pragma once

#include <vector>

#include "kernels/dispatch.h"

namespace bitpress {

// The table of an ISA that has every kernel; the others start from one of these and state what differs.
#define BITPRESS_ALL_KERNELS(isa) \
  {                               \
      #isa,                       \
      isa::QuantizeRows,          \
      isa::QuantizeBlock,         \
      isa::IntegerLinear,         \
      isa::FloatLinear,           \
      isa::AttentionUint8,        \
      isa::AttentionFloat,        \
      isa::LayerNorm,             \
      isa::Activate,              \
      isa::DecodeTwoBitRow,       \
      isa::DecodeTritsRow,        \
      isa::DecodeUniformRow,      \
      isa::DecodeCodebookRow,     \
      isa::DecodeBinaryRow,       \
      isa::DecodeTwoTermsRow,     \
      isa::AddRows,               \
      isa::MultiplyAdds,          \
      isa::BinaryLinearFloat,     \
      isa::BinaryLinearBits,      \
      isa::SignBits,              \
      isa::BitAttention,          \
      isa::BitAttentionBits,      \
  }

// Appends the kernels of the family that this build and CPU have, best first.
void AddX86Kernels(std::vector<const Kernels*>* available);
void AddArmKernels(std::vector<const Kernels*>* available);

}  // namespace bitpress
