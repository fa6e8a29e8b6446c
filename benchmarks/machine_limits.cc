// What this machine can do at most: fp32 multiply-adds, and bytes read and copied a second from each level of memory.
//
//   cmake -S . -B build -G Ninja -DBITPRESS_BUILD_BENCHMARKS=ON && cmake --build build --target machine_limits
//   build/machine_limits
//
// Prints one line of JSON. Every figure is given for one thread and for all processors at once, which share L3 and
// memory. Time is what each thread ran for, so that other work on the machine disturbs it little.
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "timing.h"

namespace bitpress {
namespace {

constexpr double kStretch = 0.15;  // seconds, of which the best of kStretches counts
constexpr int kStretches = 3;
// Bytes moved between two looks at the clock's flag: enough that a call costs nothing beside them.
constexpr size_t kBytesACall = size_t{1} << 20;

// Every 64-byte line of `data` is read with loads of `kWidth` bytes; the sum keeps the compiler from leaving any out.
template <size_t kWidth>
[[gnu::always_inline]] inline uint64_t ReadAs(const char* data, size_t bytes) {
  using Vector [[gnu::vector_size(kWidth)]] = uint64_t;
  const Vector* v = reinterpret_cast<const Vector*>(data);
  Vector a{}, b{}, c{}, d{};
  for (size_t i = 0; i < bytes / sizeof(Vector); i += 4) {
    a += v[i];
    b += v[i + 1];
    c += v[i + 2];
    d += v[i + 3];
  }
  a += b + c + d;
  uint64_t lanes[kWidth / sizeof(uint64_t)], sum = 0;
  std::memcpy(lanes, &a, sizeof(a));
  for (uint64_t lane : lanes) sum += lane;
  return sum;
}

using ReadFn = uint64_t (*)(const char* data, size_t bytes);
#ifdef __x86_64__
[[gnu::target("avx512f")]] uint64_t Read64(const char* data, size_t bytes) { return ReadAs<64>(data, bytes); }
[[gnu::target("avx2")]] uint64_t Read32(const char* data, size_t bytes) { return ReadAs<32>(data, bytes); }
ReadFn WidestRead() { return __builtin_cpu_supports("avx512f") ? Read64 : Read32; }
#else
uint64_t Read16(const char* data, size_t bytes) { return ReadAs<16>(data, bytes); }
ReadFn WidestRead() { return Read16; }
#endif

// Bytes a second, of `threads` threads together, that each call `pass(thread)`, which moves `bytes`.
double Rate(int threads, size_t bytes, const std::function<void(int)>& pass) {
  const size_t calls = std::max<size_t>(1, kBytesACall / bytes);
  double best = 0;
  for (int s = 0; s < kStretches; ++s) {
    std::atomic<int> ready{0};
    std::atomic<bool> stop{false};
    std::vector<double> rates(threads);
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t) {
      pool.emplace_back([&, t] {
        pass(t);  // brings the data to its level
        ++ready;
        while (ready < threads) std::this_thread::yield();
        const double start = ThreadSeconds();
        size_t moved = 0;
        for (; !stop; moved += calls * bytes) {
          for (size_t i = 0; i < calls; ++i) pass(t);
        }
        rates[t] = static_cast<double>(moved) / (ThreadSeconds() - start);
      });
    }
    while (ready < threads) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::duration<double>(kStretch));
    stop = true;
    double total = 0;
    for (int t = 0; t < threads; ++t) {
      pool[t].join();
      total += rates[t];
    }
    best = std::max(best, total);
  }
  return best;
}

void Level(const char* name, size_t bytes, int processors, const char* end) {
  bytes = bytes / 512 * 512;  // whole steps of a read on both halves
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::vector<std::unique_ptr<char, Free>> buffers;
  for (int t = 0; t < processors; ++t) {
    buffers.emplace_back(static_cast<char*>(std::aligned_alloc(64, bytes)));
    std::memset(buffers.back().get(), 1, bytes);
  }
  std::vector<uint64_t> sums(processors * 8);  // a cache line apart
  const ReadFn widest = WidestRead();
  const auto read = [&](int t) { static_cast<volatile uint64_t&>(sums[t * 8]) = widest(buffers[t].get(), bytes); };
  const size_t half = bytes / 2;
  const auto copy = [&](int t) {
    std::memcpy(buffers[t].get() + half, buffers[t].get(), half);
    asm volatile("" : : "r"(buffers[t].get()) : "memory");
  };
  std::printf("\"%s\": {\"bytes\": %zu, \"read\": [%.1f, %.1f], \"copy\": [%.1f, %.1f]}%s", name, bytes,
              Rate(1, bytes, read) * 1e-9, Rate(processors, bytes, read) * 1e-9, Rate(1, half, copy) * 1e-9,
              Rate(processors, half, copy) * 1e-9, end);
}

}  // namespace
}  // namespace bitpress

int main() {
  using namespace bitpress;
  std::string error;
  const Kernels* kernels = ChosenKernels(&error);
  if (!kernels) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  const int processors = CPU_COUNT(&allowed);
  std::vector<double> peaks(processors);
  std::vector<std::thread> pool;
  for (int t = 0; t < processors; ++t) pool.emplace_back([&, t] { peaks[t] = PeakFloat(*kernels); });
  for (std::thread& thread : pool) thread.join();
  double together = 0;
  for (double peak : peaks) together += peak;
  std::printf("{\"processors\": %d, \"fp32_gmacs\": [%.1f, %.1f], \"gbytes\": {", processors, PeakFloat(*kernels),
              together);
  // Working sets of a thread that stay in their level on any server or desktop core of the last ten years (L1 32 KB and
  // more, L2 256 KB and more, L3 2 MB a core and more), or in none. The system's own account of the sizes is wrong in
  // many virtual machines.
  Level("L1", size_t{16} << 10, processors, ", ");
  Level("L2", size_t{192} << 10, processors, ", ");
  Level("L3", size_t{3} << 20, processors, ", ");
  Level("memory", size_t{256} << 20, processors, "}}\n");
  return 0;
}
