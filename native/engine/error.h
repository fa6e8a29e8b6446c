// The one exception of the engine; the C ABI turns it into a status and a line of text.
#pragma once

#include <stdexcept>
#include <string>

#include "include/bitpress.h"

namespace bitpress {

class Error : public std::runtime_error {
 public:
  Error(bp_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  bp_status status() const { return status_; }

 private:
  bp_status status_;
};

[[noreturn]] inline void Refuse(const std::string& text) { throw Error(BP_INVALID_ARGUMENT, text); }

}  // namespace bitpress
