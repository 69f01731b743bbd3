#pragma once

#include <cstdint>

namespace wam {

/// Standard normal numbers from a seed: the same on every machine and with every compiler.
void fill_normal(uint64_t seed, float* out, int64_t n);

}  // namespace wam
