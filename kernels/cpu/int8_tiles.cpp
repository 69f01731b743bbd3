// Tiles of products of bytes, one for each instruction set. Every function names its target itself, so that nothing
// here that other files share is compiled for a CPU that may not be there.
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

// Without VNNI bytes are widened to 16 bits, whose products are exact. (vpmaddubsw would saturate.) A register has two
// sums for each of 8 columns.
template <int Rows>
WAMCORE_AVX512 void widened512(const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*,
                               int32_t* acc) {
  __m512i a[Rows][4] = {};
  for (int64_t i = 0; i < steps; ++i) {
    __m512i b[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v)
      b[v] = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + i * 128 + 32 * v)));
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, x + r * ldx + 4 * i, sizeof four);
      const __m512i value = _mm512_cvtepi8_epi16(_mm256_set1_epi32(four));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) a[r][v] = _mm512_add_epi32(a[r][v], _mm512_madd_epi16(value, b[v]));
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
    alignas(64) int32_t pairs[2 * kPanel];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) _mm512_store_si512(pairs + 16 * v, a[r][v]);
    for (int64_t j = 0; j < kPanel; ++j) acc[r * kPanel + j] = pairs[2 * j] + pairs[2 * j + 1];
  }
}

// The same with 8 columns in two registers; a panel in two halves, so that the sums of three rows fit.
template <int Rows>
WAMCORE_AVX2 void widened256(const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t*,
                             int32_t* acc) {
  for (int half = 0; half < 2; ++half) {
    __m256i a[Rows][4] = {};
    for (int64_t i = 0; i < steps; ++i) {
      __m256i value[Rows];
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + r * ldx + 4 * i, sizeof four);
        value[r] = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const auto* at = reinterpret_cast<const __m128i*>(w + i * 128 + 64 * half + 16 * v);
        const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128(at));
#pragma GCC unroll 6
        for (int r = 0; r < Rows; ++r) a[r][v] = _mm256_add_epi32(a[r][v], _mm256_madd_epi16(value[r], b));
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      alignas(32) int32_t pairs[kPanel];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) _mm256_store_si256(reinterpret_cast<__m256i*>(pairs + 8 * v), a[r][v]);
      for (int64_t j = 0; j < kPanel / 2; ++j)
        acc[r * kPanel + half * kPanel / 2 + j] = pairs[2 * j] + pairs[2 * j + 1];
    }
  }
}

void run_vnni(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
              void* acc) {
  constexpr Run kRun[] = {vnni<1>, vnni<2>, vnni<3>, vnni<4>,  vnni<5>,  vnni<6>,
                          vnni<7>, vnni<8>, vnni<9>, vnni<10>, vnni<11>, vnni<12>};
  kRun[rows - 1](x, ldx, w, steps, sum, static_cast<int32_t*>(acc));
}
void run_avx512(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
                void* acc) {
  constexpr Run kRun[] = {widened512<1>, widened512<2>, widened512<3>, widened512<4>, widened512<5>, widened512<6>};
  kRun[rows - 1](x, ldx, w, steps, sum, static_cast<int32_t*>(acc));
}
void run_avx2(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
              void* acc) {
  constexpr Run kRun[] = {widened256<1>, widened256<2>};
  kRun[rows - 1](x, ldx, w, steps, sum, static_cast<int32_t*>(acc));
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
      return {.group = 4, .rows = 6, .tile = run_avx512};
    case Isa::avx2:
      return {.group = 4, .rows = 2, .tile = run_avx2};
#elif defined(__aarch64__)
    case Isa::neon_mmla:
      return mmla_product(/*bytes=*/true);
    case Isa::neon_dotprod:
      return {.group = 4, .rows = 6, .tile = run_dotprod};
#endif
    default:
      return {.group = 4, .rows = 48, .tile = run_portable};
  }
}

}  // namespace wam::kernels
