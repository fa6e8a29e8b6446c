// What a model's configuration may be.
#pragma once

#include "include/bitpress.h"
#include "kernels/dispatch.h"

namespace bitpress {

// Refuses whatever the engine does not run, naming the field, what was found and what is allowed.
void CheckConfig(const bp_config& config);

// The function of a checked configuration's hidden_act.
Activation ActivationOf(uint32_t hidden_act);
// Of the pooler's linear.
Activation HeadActivationOf(uint32_t head);

}  // namespace bitpress
