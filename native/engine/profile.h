// Where the time of a forward call goes: nanoseconds by operation, summed over threads.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "include/bitpress.h"

namespace bitpress {

using Operation = bp_operation;

// Times of each thread of a call; written by that thread alone.
class Profile {
 public:
  explicit Profile(size_t threads) : threads_(threads) {}
  void Add(size_t thread, Operation operation, uint64_t nanoseconds) {
    threads_[thread].nanoseconds[operation] += nanoseconds;
  }
  void Subtract(size_t thread, Operation operation, uint64_t nanoseconds) {
    threads_[thread].nanoseconds[operation] -= nanoseconds;
  }
  uint64_t Total(Operation operation) const {
    uint64_t total = 0;
    for (const Times& times : threads_) total += times.nanoseconds[operation];
    return total;
  }

 private:
  struct alignas(64) Times {  // a cache line of its own
    std::array<uint64_t, BP_OPERATIONS> nanoseconds{};
  };
  std::vector<Times> threads_;
};

// Attributes the time since its construction, or since the last lap, to the operation that has just been done. Without
// a profile a lap costs one branch.
class Stopwatch {
 public:
  Stopwatch(Profile* profile, size_t thread) : profile_(profile), thread_(thread) {
    if (profile_ != nullptr) last_ = Clock::now();
  }
  void Lap(Operation operation) {
    if (profile_ == nullptr) return;
    const Clock::time_point now = Clock::now();
    profile_->Add(thread_, operation, std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count());
    last_ = now;
  }
  // The same where `part` of the time, of another operation, was measured within it.
  void Lap(Operation operation, Operation part, uint64_t nanoseconds) {
    Lap(operation);
    if (profile_ == nullptr) return;
    profile_->Add(thread_, part, nanoseconds);
    profile_->Subtract(thread_, operation, nanoseconds);
  }
  bool runs() const { return profile_ != nullptr; }

 private:
  using Clock = std::chrono::steady_clock;
  Profile* profile_;
  size_t thread_;
  Clock::time_point last_;
};

}  // namespace bitpress
