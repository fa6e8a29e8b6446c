// What it costs to hand work to the thread pool: microseconds of a section whose tasks do nothing.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target hand_off
//   build/hand_off
//
// A forward call has two sections a layer (rows in blocks) or nine (few rows). Back to back, workers still spin when a
// section comes; after a pause they sleep, and the first section must wake them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "engine/thread_pool.h"

namespace bitpress {
namespace {

double Microseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

// Median of `repeats` sections, each after `pause`. Every task waits until all have begun, so that a section is counted
// only once every thread has taken part.
double MedianSection(size_t threads, std::chrono::microseconds pause, int repeats) {
  ThreadTeam team(threads);
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    std::atomic<size_t> begun{0};
    const auto start = std::chrono::steady_clock::now();
    team.ParallelFor(team.size(), [&](size_t, size_t) {
      begun.fetch_add(1);
      while (begun.load() < team.size()) {
      }
    });
    times.push_back(Microseconds(std::chrono::steady_clock::now() - start));
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[repeats / 2];
}

}  // namespace
}  // namespace bitpress

int main() {
  using bitpress::MedianSection;
  const size_t threads = bitpress::HardwareThreads();
  std::printf("%zu threads, microseconds from handing out to the end of a section in which every thread took part\n",
              threads);
  std::printf("  back to back           %8.2f\n", MedianSection(threads, std::chrono::microseconds(0), 20000));
  std::printf("  after 50 microseconds  %8.2f\n", MedianSection(threads, std::chrono::microseconds(50), 2000));
  std::printf("  after 5 milliseconds   %8.2f\n", MedianSection(threads, std::chrono::microseconds(5000), 200));
  return 0;
}
