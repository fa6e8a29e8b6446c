// A test is TEST(Name) { ... CHECK(...); }; a failed check prints itself and fails the program, and the test goes on.
// One program per file; main() is here. Its arguments name tests to leave out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace bitpress::test {

struct Registry {
  struct Test {
    const char* name;
    void (*run)();
  };
  std::vector<Test> tests;
  int failures = 0;
  static Registry& Get() {
    static Registry registry;
    return registry;
  }
};

struct Register {
  Register(const char* name, void (*run)()) { Registry::Get().tests.push_back({name, run}); }
};

inline void Fail(const char* file, int line, const std::string& what) {
  // A loop that fails everywhere would bury its first, telling lines.
  if (++Registry::Get().failures <= 20) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

#define TEST(name)                                                \
  static void name();                                             \
  static ::bitpress::test::Register register_##name{#name, name}; \
  static void name()

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) ::bitpress::test::Fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (0)

// With a message, a std::string expression that is only evaluated on failure.
#define CHECK_MSG(condition, message)                                                                               \
  do {                                                                                                              \
    if (!(condition)) ::bitpress::test::Fail(__FILE__, __LINE__, "CHECK(" #condition "): " + std::string(message)); \
  } while (0)

inline uint32_t Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
// The same bits, or both NaN (whose payload no contract fixes).
inline bool SameBits(float a, float b) { return Bits(a) == Bits(b) || (std::isnan(a) && std::isnan(b)); }
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!SameBits(a[i], b[i])) return false;
  }
  return true;
}

// Fixed seed: a failure repeats.
inline std::mt19937& Random() {
  static std::mt19937 engine(20240229);
  return engine;
}
inline std::vector<float> RandomFloats(size_t n, float deviation = 1.0f) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> x(n);
  for (float& v : x) v = normal(Random());
  return x;
}
inline int RandomInt(int low, int high) { return std::uniform_int_distribution<int>(low, high)(Random()); }

// Exactly `bytes` (a multiple of 64) bytes, 64-byte aligned.
struct AlignedFree {
  void operator()(void* p) const { std::free(p); }
};
using AlignedBuffer = std::unique_ptr<void, AlignedFree>;
inline AlignedBuffer AllocateAligned(size_t bytes) { return AlignedBuffer(std::aligned_alloc(64, bytes)); }

}  // namespace bitpress::test

int main(int argc, char** argv) {
  auto& registry = bitpress::test::Registry::Get();
  for (const auto& test : registry.tests) {
    if (std::any_of(argv + 1, argv + argc, [&](const char* name) { return std::strcmp(name, test.name) == 0; })) {
      std::printf("%-50s left out\n", test.name);
      continue;
    }
    const int before = registry.failures;
    test.run();
    std::printf("%-50s %s\n", test.name, registry.failures == before ? "ok" : "FAILED");
  }
  return registry.failures == 0 ? 0 : 1;
}
