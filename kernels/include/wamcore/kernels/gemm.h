#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

enum class Activation : uint8_t { none, gelu_tanh, gelu_erf, silu, relu };

/// Width of a panel of packed weights, in output columns.
inline constexpr int64_t kPanel = 32;

/// A packed weight [ceil(n / kPanel), k, kPanel], see pack_weight: as float32, or as the upper halves of floats whose
/// lower halves are zero (bfloat16). The second is as exact and half as much to read; one of the two pointers is
/// nullptr.
struct Panels {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;

  Panels() = default;
  Panels(const float* w) : f32(w) {}
  Panels(const uint16_t* w) : bf16(w) {}
};

/// y = residual + gate * act(x W^T + bias); residual and gate are optional.
struct GemmParams {
  const float* x = nullptr;     // [m, k], row stride ldx
  Panels w;                     // of a weight [n, k]
  const float* bias = nullptr;  // [n], may be nullptr
  float* y = nullptr;           // [m, n], row stride ldy; may equal residual
  int64_t m = 0, n = 0, k = 0, ldx = 0, ldy = 0;
  Activation activation = Activation::none;
  const float* residual = nullptr;  // [m, n], row stride ldr, may be nullptr
  int64_t ldr = 0;
  const float* gate = nullptr;  // [rows, n], row stride ldg, may be nullptr
  int64_t ldg = 0;
  const int32_t* gate_row = nullptr;  // [m], row of `gate` for each row of x; nullptr: row 0 for all
};

/// Floats that pack_weight writes.
inline int64_t packed_size(int64_t n, int64_t k) { return (n + kPanel - 1) / kPanel * kPanel * k; }
/// Packs w [n, k] (a torch Linear weight) into column panels, zero padded.
void pack_weight(const float* w, int64_t n, int64_t k, float* packed);

/// Whether floats survive the rounding to bfloat16 unchanged, as those of a bfloat16 checkpoint do.
bool is_bf16(const float* w, int64_t count);
/// Keeps the upper halves; exact where is_bf16.
void to_bf16(const float* w, int64_t count, uint16_t* halves);

/// Fast path: register-blocked over packed panels.
void gemm(const GemmParams& p, const Team& team);
/// The obvious triple loop in float64, same contract.
void gemm_ref(const GemmParams& p);

}  // namespace wam::kernels
