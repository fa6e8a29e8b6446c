// What the kernel benchmarks share: timing of one thread, random inputs, the fp32 peak and the clock of this run.
//
// Each figure is the best of many short repetitions, so that other work on the machine disturbs it little.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/dispatch.h"

namespace bitpress {

constexpr double kSecondsEach = 0.2;

// Seconds that this thread has run for: without those in which others had the processor.
inline double ThreadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// f() alone is timed; prepare() runs before each repetition.
template <class P, class F>
double BestSeconds(P prepare, F f) {
  double best = 1e9;
  const double begin = ThreadSeconds();
  while (ThreadSeconds() - begin < kSecondsEach) {
    prepare();
    const double start = ThreadSeconds();
    f();
    best = std::min(best, ThreadSeconds() - start);
  }
  return best;
}

template <class F>
double BestSeconds(F f) {
  return BestSeconds([] {}, f);
}

inline std::vector<float> RandomFloats(size_t n) {
  static std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(engine);
  return x;
}

// fp32 multiply-adds a second in registers, billions, with the ISA's vectors.
inline double PeakFloat(const Kernels& kernels) {
  constexpr size_t kSteps = 20000;
  size_t done = 0;
  const double seconds = BestSeconds([&] { done = kernels.multiply_adds(kSteps); });
  return static_cast<double>(done) / seconds * 1e-9;
}

// Cycles a second, billions: additions of which each takes one cycle and waits for the one before.
inline double Clock() {
  constexpr int kSteps = 20000, kUnrolled = 16;
  uint64_t sum = 0;
  const double seconds = BestSeconds([&] {
    for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kUnrolled; ++j) {
#ifdef __x86_64__
        asm volatile("add $1, %0" : "+r"(sum));
#else
        asm volatile("add %0, %0, #1" : "+r"(sum));
#endif
      }
    }
  });
  return static_cast<double>(kSteps) * kUnrolled / seconds * 1e-9;
}

}  // namespace bitpress
