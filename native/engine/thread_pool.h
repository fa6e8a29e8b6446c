// Threads of the engine.
//
// Design goals
// - A forward call has two parallel sections a layer, about nine where its rows are few, some of a few microseconds:
//   handing out a section must cost less than one. Workers therefore spin for a moment before they sleep.
// - Nobody waits for a thread that has not started: tasks are claimed one by one, and whoever is awake does them. On a
//   machine that is busy with other processes the caller simply does more of the work.
// - A process that forks may use the engine in parent and child.
// Non-goals
// - Sharing workers between concurrent calls. Workers serve one call at a time; a call that finds them taken runs on
// its
//   own thread alone [splitting them would give each call fewer threads and more waiting, and callers who bring their
//   own threads already fill the machine].
// - Which thread runs which task: no result of the engine depends on it.
#pragma once

#include <cstddef>

namespace bitpress {

struct WorkerPool;

// Logical processors this process may run on.
size_t HardwareThreads();

// The calling thread and the workers it could get, held for one forward call.
class ThreadTeam {
 public:
  // max_threads: with the calling thread; 0 means HardwareThreads(). Values above kMaxThreads count as kMaxThreads.
  explicit ThreadTeam(size_t max_threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  // Threads that may run tasks, the calling one included.
  size_t size() const { return size_; }

  // Calls body(task, thread) once for each task in 0..tasks-1, thread in 0..size()-1, and returns when all are done.
  // No two tasks run at once with the same `thread`. The body must not throw.
  template <typename Body>
  void ParallelFor(size_t tasks, const Body& body) {
    Run(tasks, [](const void* b, size_t task, size_t thread) { (*static_cast<const Body*>(b))(task, thread); }, &body);
  }

  static constexpr size_t kMaxThreads = 256;

 private:
  using TaskFn = void (*)(const void* body, size_t task, size_t thread);
  friend struct WorkerPool;

  void Run(size_t tasks, TaskFn fn, const void* body);

  WorkerPool* pool_ = nullptr;  // NULL: alone
  size_t size_ = 1;
};

}  // namespace bitpress
