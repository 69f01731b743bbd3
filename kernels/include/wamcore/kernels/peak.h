#pragma once

#include <cstdint>

namespace wam::kernels {

/// Runs about `flop` float32 operations, multiply-adds of registers and nothing else, on the calling thread, and says
/// how many: what the arithmetic units of isa() give at best.
int64_t multiply_adds(int64_t flop);

}  // namespace wam::kernels
