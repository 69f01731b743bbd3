#pragma once

#include <cmath>
#include <cstdint>

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// Eight bits of floating point: sign, 4 of exponent, 3 of mantissa. From 2^-9 to 448, one NaN, no infinity.
struct e4m3 {
  uint8_t bits;
};
inline constexpr float kLargestE4m3 = 448.0f;

WAM_HD inline float to_float(e4m3 v) {
  const int exponent = v.bits >> 3 & 15, mantissa = v.bits & 7;
  if ((v.bits & 0x7f) == 0x7f) return NAN;
  const float size = exponent ? ldexpf(float(8 + mantissa), exponent - 10) : ldexpf(float(mantissa), -9);
  return v.bits & 0x80 ? -size : size;
}

/// To the nearest, ties to even; what is larger than 448 becomes 448, NaN stays NaN.
WAM_HD inline e4m3 to_e4m3(float v) {
  const float size = fabsf(v);
  const uint8_t sign = v < 0 ? 0x80 : 0;
  if (v != v) return {0x7f};
  if (size >= kLargestE4m3) return {uint8_t(sign | 0x7e)};
  if (size < 0.015625f) return {uint8_t(sign | uint8_t(rintf(size * 512.0f)))};  // steps of 2^-9 below 2^-6
  int exponent;
  const float fraction = frexpf(size, &exponent);  // size = fraction 2^exponent, fraction in [0.5, 1)
  const int steps = int(rintf(fraction * 16.0f));  // 8 to 16
  return {uint8_t(sign | (uint8_t((exponent + 6) * 8 + steps - 8)))};
}

/// y = x / scale with one scale a row, the least normal number that keeps the row within 448 (1 for a row of zeros).
/// Activations have a scale a token, weights one an output channel: both are rows here.
struct QuantizeRowsParams {
  const bf16* x = nullptr;  // [rows, cols], row stride ldx
  e4m3* y = nullptr;        // [rows, cols], row stride ldy
  float* scale = nullptr;   // [rows]
  int32_t rows = 0, cols = 0;
  int64_t ldx = 0, ldy = 0;
};

/// cols, ldx a multiple of 8, ldy of 16, pointers 16-byte aligned.
LaunchResult quantize_rows(const QuantizeRowsParams& p, Stream stream);
/// The same bits, with the conversion that sm_89 and everything after it have an instruction for.
LaunchResult quantize_rows_sm89(const QuantizeRowsParams& p, Stream stream);

}  // namespace wam::kernels::cuda
