// Memory of one forward call: a single aligned allocation, carved into buffers, kept for the next call.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "kernels/numerics.h"

namespace bitpress {

// A cache line, and the widest vector of any ISA.
constexpr size_t kAlignment = 64;

// Hands out aligned buffers one after another from `base`; with base NULL it only measures. Carving the same sequence
// twice, measuring and then for real, keeps the sizes in one place.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<uint8_t*>(base)) {}

  // count elements of T; throws std::bad_alloc where the size does not fit size_t.
  template <typename T>
  T* Take(size_t count) {
    return reinterpret_cast<T*>(TakeBytes(count, sizeof(T)));
  }
  size_t used() const { return used_; }

 private:
  uint8_t* TakeBytes(size_t count, size_t size);

  uint8_t* base_;
  size_t used_ = 0;
};

class Workspace {
 public:
  // At least `bytes`, aligned to kAlignment; the content is arbitrary. Throws std::bad_alloc.
  void* Reserve(size_t bytes);

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t bytes_ = 0;
};

// Idle workspaces of a model. Each concurrent call borrows one. Slots are exchanged atomically [a mutex could be held
// by another thread at the moment of a fork and would stay locked in the child].
class WorkspaceCache {
 public:
  WorkspaceCache() = default;
  ~WorkspaceCache();
  WorkspaceCache(const WorkspaceCache&) = delete;
  WorkspaceCache& operator=(const WorkspaceCache&) = delete;

  std::unique_ptr<Workspace> Borrow();
  // Kept for the next call, or freed where more calls ran at once than there are slots.
  void Return(std::unique_ptr<Workspace> workspace);

 private:
  static constexpr size_t kSlots = 64;
  std::atomic<Workspace*> idle_[kSlots] = {};
};

}  // namespace bitpress
