// Folds what a binary model computes in floats between two LayerNorms, but one scale and bias, into integers.
#pragma once

#include "engine/model.h"

namespace bitpress {

// Of a model with 1-bit activations that has all its tensors: scales of inputs go into those of weights; then come the
// thresholds of query, key, value and intermediate states and of contexts, those by which layers read numbers as bits,
// and which keys a query attends to. Formulas: docs/numerics.md.
void FoldBits(Model* model);

}  // namespace bitpress
