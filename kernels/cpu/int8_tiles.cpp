// Tiles of products of bytes, one for each instruction set. Every function names its target itself, so that nothing
// here that other files share is compiled for a CPU that may not be there.
#include <algorithm>

#include "amx.h"
#include "gemm_rounded.h"
#include "mmla.h"
#include "variants.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace wam::kernels {
namespace {

using Run [[maybe_unused]] = void (*)(const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
                                      int32_t* acc);

void run_portable(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*,
                  void* acc) {
  for (int64_t r = 0; r < rows; ++r) {
    int32_t* a = static_cast<int32_t*>(acc) + r * kPanel;
    for (int64_t j = 0; j < kPanel; ++j) a[j] = 0;
    for (int64_t i = 0; i < steps; ++i) {
      const int8_t *b = w + i * kPanel * 4, *v = x + r * ldx + 4 * i;
      const int32_t v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
      for (int64_t j = 0; j < kPanel; ++j)
        a[j] += v0 * b[4 * j] + v1 * b[4 * j + 1] + v2 * b[4 * j + 2] + v3 * b[4 * j + 3];
    }
  }
}

#if WAMCORE_X86_VARIANTS

#define WAMCORE_VNNI __attribute__((target("arch=x86-64-v4,avx512vnni")))
#define WAMCORE_AVX512 __attribute__((target("arch=x86-64-v4")))
#define WAMCORE_AVX2 __attribute__((target("arch=x86-64-v3")))

// Every loop over an array of registers says that it is unrolled: left to itself the compiler stores sums to the stack
// in each step, at half the speed.

// 24 of the 32 registers hold sums. x is unsigned, as vpdpbusd wants one side to be: sums start at what its offset
// adds, negated.
template <int Rows>
WAMCORE_VNNI void vnni(const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum, int32_t* acc) {
  constexpr int kGroups = (Rows + 2) / 3;
  const int8_t* at[kGroups];  // a pointer for every third row: more would not fit the address registers
  for (int g = 0; g < kGroups; ++g) at[g] = x + 3 * g * ldx;
  __m512i a[Rows][2];
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    const __m512i start = _mm512_mullo_epi32(_mm512_loadu_si512(sum + 16 * v), _mm512_set1_epi32(-128));
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) a[r][v] = start;
  }
  for (int64_t i = 0; i < steps; ++i) {
    const __m512i w0 = _mm512_loadu_si512(w + i * 128), w1 = _mm512_loadu_si512(w + i * 128 + 64);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, at[r / 3] + r % 3 * ldx + 4 * i, sizeof four);
      const __m512i value = _mm512_set1_epi32(four);
      a[r][0] = _mm512_dpbusd_epi32(a[r][0], value, w0);
      a[r][1] = _mm512_dpbusd_epi32(a[r][1], value, w1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm512_storeu_si512(acc + r * kPanel + 16 * v, a[r][v]);
}

// Without VNNI bytes are widened to 16 bits, whose products are exact (vpmaddubsw would saturate): x when it is
// rounded, a stretch of a panel's weights once for all rows, so that the loop over the rows holds nothing but vpmaddwd
// and sums.
constexpr int64_t kStretch = 128;                // pairs of weights of a column that are widened at once
using Stretch = int16_t[kStretch * kPanel * 2];  // 8 KiB: [pairs, kPanel, 2]

// 12 of the 16 registers hold sums: six rows of 16 columns.
template <int Rows>
WAMCORE_AVX2 void widened256(const int16_t* x, int64_t ldx, const int16_t* w, int64_t pairs, int32_t* acc) {
  __m256i a[Rows][2];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v)
      a[r][v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(acc + r * kPanel + 8 * v));
  for (int64_t i = 0; i < pairs; ++i) {
    const auto* at = reinterpret_cast<const __m256i*>(w + i * kPanel * 2);
    const __m256i w0 = _mm256_load_si256(at), w1 = _mm256_load_si256(at + 1);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, x + r * ldx + 2 * i, sizeof two);
      const __m256i value = _mm256_set1_epi32(two);
      a[r][0] = _mm256_add_epi32(a[r][0], _mm256_madd_epi16(value, w0));
      a[r][1] = _mm256_add_epi32(a[r][1], _mm256_madd_epi16(value, w1));
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(acc + r * kPanel + 8 * v), a[r][v]);
}

// The same with 24 of 32 registers, twelve rows of a whole panel.
template <int Rows>
WAMCORE_AVX512 void widened512(const int16_t* x, int64_t ldx, const int16_t* w, int64_t pairs, int32_t* acc) {
  __m512i a[Rows][2];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) a[r][v] = _mm512_loadu_si512(acc + r * kPanel + 16 * v);
  for (int64_t i = 0; i < pairs; ++i) {
    const __m512i w0 = _mm512_load_si512(w + i * kPanel * 2), w1 = _mm512_load_si512(w + i * kPanel * 2 + kPanel);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, x + r * ldx + 2 * i, sizeof two);
      const __m512i value = _mm512_set1_epi32(two);
      a[r][0] = _mm512_add_epi32(a[r][0], _mm512_madd_epi16(value, w0));
      a[r][1] = _mm512_add_epi32(a[r][1], _mm512_madd_epi16(value, w1));
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm512_storeu_si512(acc + r * kPanel + 16 * v, a[r][v]);
}

WAMCORE_AVX2 void widen(const int8_t* w, int64_t values, int16_t* to) {
  for (int64_t i = 0; i < values; i += 16)
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i),
                       _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + i))));
}

struct WideRows {
  const int16_t* x = nullptr;  // [count, ld]
  int64_t count = 0, ld = 0;
};
using Widened = void (*)(const int16_t* x, int64_t ldx, const int16_t* w, int64_t pairs, int32_t* acc);

// Most: rows of a tile; Columns: of a panel, that it takes at once. x holds 16 bits a value.
template <int64_t Most, int64_t Columns>
void run_widened(const Widened (&tiles)[Most], const WideRows& rows, const int8_t* w, int64_t steps, int32_t* acc) {
  alignas(64) Stretch wide;
  const int64_t count = (rows.count + Most - 1) / Most;
  std::fill_n(acc, rows.count * kPanel, 0);
  for (int64_t from = 0; from < steps; from += kStretch) {
    const int64_t pairs = std::min(kStretch, steps - from);
    widen(w + from * kPanel * 2, pairs * kPanel * 2, wide);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t first = rows.count * t / count, n = rows.count * (t + 1) / count - first;
      for (int64_t column = 0; column < kPanel; column += Columns)
        tiles[n - 1](rows.x + first * rows.ld + 2 * from, rows.ld, wide + 2 * column, pairs,
                     acc + first * kPanel + column);
    }
  }
}

void run_vnni(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
              void* acc) {
  constexpr Run kRun[] = {vnni<1>, vnni<2>, vnni<3>, vnni<4>,  vnni<5>,  vnni<6>,
                          vnni<7>, vnni<8>, vnni<9>, vnni<10>, vnni<11>, vnni<12>};
  kRun[rows - 1](x, ldx, w, steps, sum, static_cast<int32_t*>(acc));
}
void run_avx512(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*, void* acc) {
  static constexpr Widened kTiles[] = {widened512<1>, widened512<2>,  widened512<3>,  widened512<4>,
                                       widened512<5>, widened512<6>,  widened512<7>,  widened512<8>,
                                       widened512<9>, widened512<10>, widened512<11>, widened512<12>};
  run_widened<12, kPanel>(kTiles, {reinterpret_cast<const int16_t*>(x), rows, ldx / 2}, w, steps,
                          static_cast<int32_t*>(acc));
}
void run_avx2(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*, void* acc) {
  static constexpr Widened kTiles[] = {widened256<1>, widened256<2>, widened256<3>,
                                       widened256<4>, widened256<5>, widened256<6>};
  run_widened<6, kPanel / 2>(kTiles, {reinterpret_cast<const int16_t*>(x), rows, ldx / 2}, w, steps,
                             static_cast<int32_t*>(acc));
}

#elif defined(__aarch64__)

// 24 of the 32 registers hold sums: six rows of half a panel.
template <int Rows>
__attribute__((target("arch=armv8.2-a+dotprod"))) void dotprod(const int8_t* x, int64_t ldx, const int8_t* w,
                                                               int64_t steps, const int32_t*, int32_t* acc) {
  for (int half = 0; half < 2; ++half) {
    int32_t* out = acc + half * kPanel / 2;
    int32x4_t a[Rows][4];
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < 4; ++v) a[r][v] = vdupq_n_s32(0);
    for (int64_t i = 0; i < steps; ++i) {
      int8x16_t b[4];
      for (int v = 0; v < 4; ++v) b[v] = vld1q_s8(w + i * 128 + 64 * half + 16 * v);
      for (int r = 0; r < Rows; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + r * ldx + 4 * i, sizeof four);
        const int8x16_t value = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int v = 0; v < 4; ++v) a[r][v] = vdotq_s32(a[r][v], b[v], value);
      }
    }
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < 4; ++v) vst1q_s32(out + r * kPanel + 4 * v, a[r][v]);
  }
}

void run_dotprod(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
                 void* acc) {
  constexpr Run kRun[] = {dotprod<1>, dotprod<2>, dotprod<3>, dotprod<4>, dotprod<5>, dotprod<6>};
  kRun[rows - 1](x, ldx, w, steps, sum, static_cast<int32_t*>(acc));
}

#endif

}  // namespace

RoundedProduct int8_product() {
  switch (int8_isa()) {
#if WAMCORE_X86_VARIANTS
    case Isa::amx:
      return amx_product(/*bytes=*/true);
    case Isa::avx512_vnni:
      return {.group = 4, .rows = 12, .shifted = true, .tile = run_vnni};
    case Isa::avx512:
      return {.group = 2, .rows = kMostRows, .wide = true, .tile = run_avx512};
    case Isa::avx2:
      return {.group = 2, .rows = kMostRows, .wide = true, .tile = run_avx2};
#elif defined(__aarch64__)
    case Isa::neon_mmla:
      return mmla_product(/*bytes=*/true);
    case Isa::neon_dotprod:
      return {.group = 4, .rows = 6, .tile = run_dotprod};
#endif
    default:
      return {.group = 4, .rows = kMostRows, .tile = run_portable};
  }
}

}  // namespace wam::kernels
