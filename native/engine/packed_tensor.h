// A packed tensor as the C ABI gives it, checked.
#pragma once

#include <string>

#include "include/bitpress.h"
#include "kernels/integer_linear/integer_linear.h"

namespace bitpress {

// A name from outside, fit for one line of text.
std::string Quoted(const char* name);

// "3-bit symmetric codes", for errors.
std::string Codes(const CodeFormat& format);

// Groups that have a scale, in all terms.
size_t Groups(const PackedWeights& weights);

// Everything but the codes' content, which is checked while they are read. What scheme, bits, packing, groups and
// numbers of scales, offsets and table entries may be is said in bitpress.h; anything else is refused by name.
PackedWeights CheckPacked(const char* name, const bp_packed& tensor);

}  // namespace bitpress
