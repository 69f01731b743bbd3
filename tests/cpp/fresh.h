#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace check {

/// A generator that is seeded afresh in every run; WAMCORE_TEST_SEED repeats a run. The seed is printed once.
inline std::mt19937_64& fresh() {
  static std::mt19937_64 generator = [] {
    const char* given = std::getenv("WAMCORE_TEST_SEED");
    const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("WAMCORE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return std::mt19937_64(seed);
  }();
  return generator;
}

inline double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(fresh()); }
inline int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(fresh()); }

}  // namespace check
