// How the native benchmarks measure: the best of many short repetitions, so that other work on the machine disturbs the
// figure little, beside the fp32 multiply-add peak of the same run.
#pragma once

#include <time.h>

#include <algorithm>

namespace bitpress {

// Seconds that this thread has run for: without those in which others had the processor.
inline double ThreadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

template <class F>
double BestSeconds(double seconds, F f) {
  double best = 1e9;
  const double begin = ThreadSeconds();
  while (ThreadSeconds() - begin < seconds) {
    const double start = ThreadSeconds();
    f();
    best = std::min(best, ThreadSeconds() - start);
  }
  return best;
}

// Multiply-adds a second of twelve independent chains in registers, billions; 0 where it is not known.
#ifdef __x86_64__
[[gnu::target("avx2,fma")]] inline double PeakFloat() {
  using Vector [[gnu::vector_size(32)]] = float;
  constexpr int kChains = 12, kSteps = 20000;
  const double seconds = BestSeconds(0.4, []() __attribute__((target("avx2,fma"))) {
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
