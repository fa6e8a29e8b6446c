// Thread team and workspaces. Oracle: every task runs exactly once, on a thread number that no other task holds.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "engine/thread_pool.h"
#include "engine/workspace.h"
#include "tests/check.h"

namespace bitpress {
namespace {

// Runs one section and checks the promises of ParallelFor.
void RunSection(ThreadTeam& team, size_t tasks) {
  std::vector<std::atomic<int>> runs(tasks);
  std::vector<std::atomic<int>> busy(team.size());
  team.ParallelFor(tasks, [&](size_t task, size_t thread) {
    CHECK(thread < team.size());
    CHECK(busy[thread].fetch_add(1) == 0);
    runs[task].fetch_add(1);
    busy[thread].fetch_sub(1);
  });
  for (auto& count : runs) CHECK(count.load() == 1);
}

TEST(EveryTaskRunsOnce) {
  for (size_t threads : {1, 2, 3, 7, 16}) {
    ThreadTeam team(threads);
    CHECK(team.size() == threads);
    for (size_t tasks : {0, 1, 2, 3, 5, 64, 1000}) RunSection(team, tasks);
  }
}

TEST(ResultsOfASectionAreVisibleAfterIt) {
  ThreadTeam team(4);
  std::vector<size_t> values(257, 0);  // plain: a missing barrier is a data race here
  for (size_t round = 1; round <= 500; ++round) {
    team.ParallelFor(values.size(), [&](size_t task, size_t) { values[task] += task + round; });
  }
  for (size_t i = 0; i < values.size(); ++i) CHECK(values[i] == 500 * i + 500 * 501 / 2);
}

TEST(SectionsAfterTheWorkersFellAsleep) {
  ThreadTeam team(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 4));
    RunSection(team, 50);
  }
}

TEST(TheCallerSleepsWhileOthersFinish) {
  ThreadTeam team(2);
  for (int round = 0; round < 5; ++round) {
    team.ParallelFor(2, [&](size_t, size_t thread) {
      if (thread != 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    });
  }
}

// Workers that find themselves on the caller's processor move away by narrowing their affinity for a moment.
TEST(WorkersMayRunWhereverTheCallerMay) {
  const size_t allowed = HardwareThreads();
  ThreadTeam team(3);
  for (int round = 0; round < 50; ++round) {
    if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    team.ParallelFor(9, [&](size_t, size_t) { CHECK(HardwareThreads() == allowed); });
  }
}

TEST(ASecondTeamRunsAlone) {
  ThreadTeam first(2);
  {
    ThreadTeam second(2);
    CHECK(second.size() == 1);
    RunSection(second, 100);
  }
  RunSection(first, 100);
}

TEST(TheWorkersAreFreeAgainAfterATeam) {
  for (int i = 0; i < 100; ++i) {
    ThreadTeam team(1 + i % 3);
    CHECK(team.size() == 1 + static_cast<size_t>(i) % 3);
    RunSection(team, 10);
  }
}

TEST(ManyCallersAtOnce) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([i] {
      for (int round = 0; round < 100; ++round) {
        ThreadTeam team(2 + static_cast<size_t>(i + round) % 3);
        for (size_t tasks : {1, 9, 33}) RunSection(team, tasks);
      }
    });
  }
  for (auto& caller : callers) caller.join();
}

TEST(ZeroThreadsMeansAllProcessorsAndTooManyMeansTheMost) {
  CHECK(HardwareThreads() >= 1);
  CHECK(ThreadTeam(0).size() == std::min(HardwareThreads(), ThreadTeam::kMaxThreads));
  CHECK(ThreadTeam(100000).size() == ThreadTeam::kMaxThreads);
}

TEST(AForkedChildGetsWorkersOfItsOwn) {
  ThreadTeam team(2);
  RunSection(team, 100);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    {
      ThreadTeam own(3);  // the parent's team is taken at the moment of the fork
      CHECK(own.size() == 3);
      for (int i = 0; i < 50; ++i) RunSection(own, 20);
    }
    _exit(test::Registry::Get().failures == 0 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  RunSection(team, 100);
}

TEST(ArenaMeasuresWhatItCarves) {
  Arena measure(nullptr);
  measure.Take<float>(3);
  measure.Take<uint8_t>(65);
  measure.Take<double>(0);
  CHECK(measure.used() == 64 + 128);
  alignas(kAlignment) uint8_t memory[64 + 128];
  Arena arena(memory);
  CHECK(reinterpret_cast<uint8_t*>(arena.Take<float>(3)) == memory);
  CHECK(arena.Take<uint8_t>(65) == memory + 64);
  CHECK(arena.used() <= sizeof(memory));
}

TEST(ArenaRefusesSizesThatOverflow) {
  const auto throws = [](size_t first, size_t second) {
    Arena arena(nullptr);
    try {
      arena.Take<float>(first);
      arena.Take<float>(second);
      return false;
    } catch (const std::bad_alloc&) {
      return true;
    }
  };
  CHECK(throws(SIZE_MAX / 4 + 1, 0));
  CHECK(throws(SIZE_MAX / 4, 0));  // fits, but not when rounded up
  CHECK(throws(SIZE_MAX / 8, SIZE_MAX / 8));
  CHECK(!throws(SIZE_MAX / 16, SIZE_MAX / 16));
}

TEST(WorkspaceKeepsItsMemory) {
  Workspace workspace;
  void* first = workspace.Reserve(1000);
  CHECK(reinterpret_cast<uintptr_t>(first) % kAlignment == 0);
  CHECK(workspace.Reserve(10) == first && workspace.Reserve(1000) == first);
  std::memset(workspace.Reserve(5000), 1, 5000);
}

TEST(WorkspaceCacheGivesBackWhatItGot) {
  WorkspaceCache cache;
  auto workspace = cache.Borrow();
  Workspace* raw = workspace.get();
  auto other = cache.Borrow();
  CHECK(other.get() != raw);
  cache.Return(std::move(workspace));
  CHECK((workspace = cache.Borrow()).get() == raw);
  std::vector<std::unique_ptr<Workspace>> many;
  for (int i = 0; i < 200; ++i) many.push_back(cache.Borrow());
  for (auto& one : many) cache.Return(std::move(one));  // more than it has places for
}

}  // namespace
}  // namespace bitpress
