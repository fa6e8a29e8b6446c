// What the kernel benchmarks share: timing of one thread, random inputs, the fp32 peak of this run.
//
// Each figure is the best of many short repetitions, so that other work on the machine disturbs it little.
#pragma once

#include <time.h>

#include <algorithm>
#include <random>
#include <vector>

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

// Multiply-adds a second of twelve independent chains in registers, billions.
#ifdef __x86_64__
[[gnu::target("avx2,fma")]] inline double PeakFloat() {
  using Vector [[gnu::vector_size(32)]] = float;
  constexpr int kChains = 12, kSteps = 20000;
  const double seconds = BestSeconds([]() __attribute__((target("avx2,fma"))) {
    Vector acc[kChains] = {};
    Vector x = Vector{} + 0.5f, y = Vector{} + 0.25f;
    for (int i = 0; i < kSteps; ++i) {
      for (Vector& a : acc) asm volatile("vfmadd231ps %1, %2, %0" : "+x"(a) : "x"(x), "x"(y));
    }
  });
  return 8.0 * kChains * kSteps / seconds * 1e-9;
}
#else
inline double PeakFloat() { return 0.0; }
#endif

}  // namespace bitpress
