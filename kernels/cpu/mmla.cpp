#include "mmla.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace wam::kernels {

#if defined(__aarch64__)
namespace {

#define WAMCORE_MMLA __attribute__((target("arch=armv8.2-a+i8mm+bf16")))

// Sums of two rows and two columns: of eight bytes each in a step, or of four bfloat16.
struct OfBytes {
  using Vec = int32x4_t;
  WAMCORE_MMLA static inline Vec dot(Vec sums, int8x16_t x, int8x16_t w) { return vmmlaq_s32(sums, x, w); }
};
struct OfHalves {
  using Vec = float32x4_t;
  WAMCORE_MMLA static inline Vec dot(Vec sums, int8x16_t x, int8x16_t w) {
    return vbfmmlaq_f32(sums, vreinterpretq_bf16_s8(x), vreinterpretq_bf16_s8(w));
  }
};

// 2 * Pairs rows of half a panel: 16 of the 32 registers hold sums at most, eight weights. With an odd number of rows
// the last one is its own partner, and what comes of the partner is not written.
template <class Of, int Pairs>
WAMCORE_MMLA void pairs_of_rows(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, void* acc) {
  using Vec = typename Of::Vec;
  for (int64_t half = 0; half < 2; ++half) {
    Vec sums[Pairs][8] = {};
    for (int64_t i = 0; i < steps; ++i) {
      int8x16_t value[Pairs];
#pragma GCC unroll 2
      for (int p = 0; p < Pairs; ++p) {
        const int8_t* upper = x + 2 * p * ldx + 8 * i;
        value[p] = vcombine_s8(vld1_s8(upper), vld1_s8(2 * p + 1 < rows ? upper + ldx : upper));
      }
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) {
        const int8x16_t b = vld1q_s8(w + i * 8 * kPanel + half * 4 * kPanel + 16 * v);
#pragma GCC unroll 2
        for (int p = 0; p < Pairs; ++p) sums[p][v] = Of::dot(sums[p][v], value[p], b);
      }
    }
#pragma GCC unroll 2
    for (int p = 0; p < Pairs; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) {  // columns 2v and 2v + 1 of the upper row, then of the lower
        auto* to = static_cast<int8_t*>(acc) + (2 * p * kPanel + half * kPanel / 2 + 2 * v) * 4;
        __builtin_memcpy(to, &sums[p][v], 8);
        if (2 * p + 1 < rows) __builtin_memcpy(to + kPanel * 4, reinterpret_cast<const char*>(&sums[p][v]) + 8, 8);
      }
  }
}

template <class Of>
void run(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*, void* acc) {
  if (rows > 2)
    pairs_of_rows<Of, 2>(rows, x, ldx, w, steps, acc);
  else
    pairs_of_rows<Of, 1>(rows, x, ldx, w, steps, acc);
}

}  // namespace

RoundedProduct mmla_product(bool bytes) {
  return {.group = bytes ? 8 : 4, .rows = 4, .tile = bytes ? run<OfBytes> : run<OfHalves>};
}
#else
RoundedProduct mmla_product(bool) { return {}; }
#endif

}  // namespace wam::kernels
