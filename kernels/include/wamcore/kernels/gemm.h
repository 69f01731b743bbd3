#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

enum class Activation : uint8_t { none, gelu_tanh, gelu_erf, silu, relu };

/// Width of a panel of packed weights, in output columns.
inline constexpr int64_t kPanel = 32;

/// y = residual + gate * act(x W^T + bias); residual and gate are optional.
struct GemmParams {
  const float* x = nullptr;     // [m, k], row stride ldx
  const float* w = nullptr;     // packed: [ceil(n / kPanel), k, kPanel], see pack_weight
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

/// Fast path: register-blocked over packed panels.
void gemm(const GemmParams& p, const Team& team);
/// The obvious triple loop in float64, same contract.
void gemm_ref(const GemmParams& p);

}  // namespace wam::kernels
