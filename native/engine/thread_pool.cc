#include "engine/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace bitpress {
namespace {

// Longer than any wait within a call, and than the pause between two calls of a loop. Waking a sleeper takes about as
// long as a section of a small model: with 100 microseconds workers fell asleep in each section, woke when the caller
// had done their tasks too, and two threads were no faster than one (TinyBERT-4, 1 x 128 tokens: 9.1 ms, and 4.7 with
// 500 to 2,000). The price is this much of a core after the last call of a burst.
constexpr std::chrono::microseconds kSpinTime(1000);
// Clock reads are about as dear as this many pauses.
constexpr int kPausesPerClockRead = 32;
// From then on the processor is offered to whoever waits for it: that may be the thread that is waited for.
constexpr std::chrono::microseconds kSpinAlone(20);

inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as done() holds; false when it did not within kSpinTime.
template <typename Predicate>
bool SpinUntil(const Predicate& done) {
  const auto start = std::chrono::steady_clock::now();
  for (auto now = start; now - start < kSpinTime; now = std::chrono::steady_clock::now()) {
    if (now - start > kSpinAlone) sched_yield();
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      CpuRelax();
    }
  }
  return done();
}

// Moves the calling thread off `processor` if it runs there and may run elsewhere. Linux wakes threads where their
// waker runs, at times while other processors are idle, and looks again only after milliseconds, several calls of a
// small model.
void LeaveProcessor(int processor) {
  if (processor < 0 || sched_getcpu() != processor) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof(others), &others) != 0) return;
  sched_setaffinity(0, sizeof(allowed), &allowed);
}

// The state of a section in one word, so that a claim is one compare-and-swap and can never mix two sections:
// section number (32 bits) | threads that may claim (12) | tasks not yet claimed (20).
// A stale claimer is caught by the number, unless it slept through exactly 2^32 sections.
constexpr int kTaskBits = 20, kTeamBits = 12;
constexpr uint64_t kMaxTasks = (uint64_t{1} << kTaskBits) - 1;
static_assert(ThreadTeam::kMaxThreads < (size_t{1} << kTeamBits), "a team size must fit its field of the ticket");

constexpr uint64_t MakeTicket(uint32_t section, uint64_t team, uint64_t tasks) {
  return uint64_t{section} << (kTaskBits + kTeamBits) | team << kTaskBits | tasks;
}
constexpr uint64_t TasksOf(uint64_t ticket) { return ticket & kMaxTasks; }
constexpr uint64_t TeamOf(uint64_t ticket) { return (ticket >> kTaskBits) & ((uint64_t{1} << kTeamBits) - 1); }

struct alignas(64) Worker {
  std::atomic<bool> asleep{false};
  std::condition_variable wake;
};

}  // namespace

struct WorkerPool {
  using TaskFn = ThreadTeam::TaskFn;

  std::atomic<bool> taken{false};

  // Written by the thread that holds `taken`, while no task of an earlier section is unfinished.
  size_t workers = 0;
  uint32_t section = 0;
  TaskFn fn = nullptr;
  const void* body = nullptr;
  std::atomic<int> caller_processor{-1};

  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<uint64_t> unfinished{0};
  alignas(64) std::atomic<bool> caller_asleep{false};
  std::mutex mutex;  // only for sleeping and waking
  std::condition_variable finished;
  Worker worker[ThreadTeam::kMaxThreads];  // [0] is the caller's place, unused

  bool HasWork(size_t thread) const {
    const uint64_t t = ticket.load(std::memory_order_seq_cst);
    return TasksOf(t) > 0 && thread < TeamOf(t);
  }

  // Runs tasks of the current section until none is left to claim.
  void Work(size_t thread) {
    uint64_t t = ticket.load(std::memory_order_acquire);
    while (TasksOf(t) > 0 && thread < TeamOf(t)) {
      if (!ticket.compare_exchange_weak(t, t - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      // fn and body are those of ticket t: the section cannot end, so they cannot change, before this task is finished.
      fn(body, TasksOf(t) - 1, thread);
      // Pairs with Finish: either this sees the caller asleep, or the caller sees zero before it sleeps (both seq_cst).
      if (unfinished.fetch_sub(1, std::memory_order_seq_cst) == 1 && caller_asleep.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_one();
      }
      t = ticket.load(std::memory_order_acquire);
    }
  }

  void WorkerLoop(size_t thread) {
    Worker& self = worker[thread];
    for (;;) {
      LeaveProcessor(caller_processor.load(std::memory_order_relaxed));
      Work(thread);
      if (SpinUntil([&] { return HasWork(thread); })) continue;
      std::unique_lock<std::mutex> lock(mutex);
      self.asleep.store(true, std::memory_order_seq_cst);
      self.wake.wait(lock, [&] { return HasWork(thread); });
      self.asleep.store(false, std::memory_order_relaxed);
    }
  }

  void Publish(size_t team, size_t tasks, TaskFn task_fn, const void* task_body) {
    fn = task_fn;
    body = task_body;
    unfinished.store(tasks, std::memory_order_relaxed);
    caller_processor.store(sched_getcpu(), std::memory_order_relaxed);
    // Pairs with WorkerLoop: either the worker sees the new ticket before it waits, or this sees it asleep.
    ticket.store(MakeTicket(++section, team, tasks), std::memory_order_seq_cst);
    for (size_t i = 1; i < team; ++i) {
      if (!worker[i].asleep.load(std::memory_order_seq_cst)) continue;
      std::lock_guard<std::mutex> lock(mutex);
      worker[i].wake.notify_one();
    }
  }

  void Finish() {
    if (SpinUntil([&] { return unfinished.load(std::memory_order_acquire) == 0; })) return;
    std::unique_lock<std::mutex> lock(mutex);
    caller_asleep.store(true, std::memory_order_seq_cst);
    finished.wait(lock, [&] { return unfinished.load(std::memory_order_seq_cst) == 0; });
    caller_asleep.store(false, std::memory_order_relaxed);
  }

  // Starts workers until there are `wanted`; fewer where the system refuses more threads.
  void Start(size_t wanted) {
    // Workers take no signals: those are the host program's, which expects them on its own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      while (workers < wanted) {
        const size_t index = workers + 1;
        std::thread([this, index] { WorkerLoop(index); }).detach();
        ++workers;
      }
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
};

namespace {

// The pool lives as long as the process: workers may be asleep in it when static destructors run.
std::atomic<WorkerPool*> process_pool{nullptr};

// A forked child has none of the workers, and possibly a locked mutex: it starts with a new pool on first use.
void ForgetPoolInChild() { process_pool.store(nullptr, std::memory_order_relaxed); }
[[maybe_unused]] const int fork_handler_registered = pthread_atfork(nullptr, nullptr, ForgetPoolInChild);

WorkerPool* ProcessPool() {
  WorkerPool* pool = process_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  auto fresh = std::make_unique<WorkerPool>();
  if (process_pool.compare_exchange_strong(pool, fresh.get(), std::memory_order_acq_rel)) return fresh.release();
  return pool;
}

}  // namespace

size_t HardwareThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());  // more processors than cpu_set_t can name
}

ThreadTeam::ThreadTeam(size_t max_threads) {
  const size_t wanted = std::min(max_threads == 0 ? HardwareThreads() : max_threads, kMaxThreads);
  if (wanted == 1) return;
  WorkerPool* pool = ProcessPool();
  if (pool->taken.exchange(true, std::memory_order_acquire)) return;
  pool_ = pool;
  pool->Start(wanted - 1);
  size_ = std::min(wanted, pool->workers + 1);
}

ThreadTeam::~ThreadTeam() {
  if (pool_ != nullptr) pool_->taken.store(false, std::memory_order_release);
}

void ThreadTeam::Run(size_t tasks, TaskFn fn, const void* body) {
  if (size_ > 1 && tasks > 1 && tasks <= kMaxTasks) {
    pool_->Publish(std::min(size_, tasks), tasks, fn, body);
    pool_->Work(0);
    pool_->Finish();
    return;
  }
  for (size_t task = 0; task < tasks; ++task) fn(body, task, 0);
}

}  // namespace bitpress
