#include "engine/workspace.h"

#include <new>

namespace bitpress {

uint8_t* Arena::TakeBytes(size_t count, size_t size) {
  size_t bytes, padded, end;
  if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, kAlignment - 1, &padded) ||
      __builtin_add_overflow(used_, padded / kAlignment * kAlignment, &end)) {
    throw std::bad_alloc();
  }
  uint8_t* p = base_ == nullptr ? nullptr : base_ + used_;
  used_ = end;
  return p;
}

void* Workspace::Reserve(size_t bytes) {
  if (bytes > bytes_) {
    memory_.reset();  // before the new one: the old content is not needed
    bytes_ = 0;
    memory_.reset(std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment)));
    if (memory_ == nullptr) throw std::bad_alloc();
    bytes_ = bytes;
  }
  return memory_.get();
}

WorkspaceCache::~WorkspaceCache() {
  for (auto& slot : idle_) delete slot.load(std::memory_order_acquire);
}

std::unique_ptr<Workspace> WorkspaceCache::Borrow() {
  for (auto& slot : idle_) {
    if (slot.load(std::memory_order_relaxed) == nullptr) continue;
    if (Workspace* w = slot.exchange(nullptr, std::memory_order_acquire)) return std::unique_ptr<Workspace>(w);
  }
  return std::make_unique<Workspace>();
}

void WorkspaceCache::Return(std::unique_ptr<Workspace> workspace) {
  for (auto& slot : idle_) {
    Workspace* empty = nullptr;
    if (slot.compare_exchange_strong(empty, workspace.get(), std::memory_order_release, std::memory_order_relaxed)) {
      workspace.release();
      return;
    }
  }
}

}  // namespace bitpress
