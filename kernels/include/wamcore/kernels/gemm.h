#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

enum class Activation : uint8_t { none, gelu_tanh, gelu_erf, silu, relu };

/// Width of a panel of packed weights, in output columns.
inline constexpr int64_t kPanel = 32;

/// A packed weight [ceil(n / kPanel), k, kPanel], see pack_weight: as float32, or as the upper halves of floats whose
/// lower halves are zero (bfloat16). The second is as exact and half as much to read. The third form, see
/// pack_weight_int8, is rounded to bytes, and makes gemm round each row of x to bytes too; so does the second form to
/// bfloat16 where pack_weight_bf16 wrote it. Rounded forms are [ceil(n / kPanel), ceil(k / group), kPanel, group], zero
/// padded, as the instructions of this CPU read them. Two of the pointers f32, bf16 and int8 are nullptr.
struct Panels {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  bool rounds = false;  // with bf16: x is rounded to bfloat16 for the product; sums stay float32
  const int8_t* int8 = nullptr;
  int64_t group = 1;             // consecutive inputs of an output that lie together
  const float* scale = nullptr;  // with int8: [ceil(n / kPanel) * kPanel], what a step of an output's weights is worth
  const int32_t* sum = nullptr;  // with int8: [ceil(n / kPanel) * kPanel], the sum of each output's weights in steps

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

/// Largest k of int8 weights: sums of products of bytes must fit 32 bits.
inline constexpr int64_t kMaxInt8Depth = 65536;
/// Bytes that pack_weight_int8 writes.
int64_t packed_int8_size(int64_t n, int64_t k);
/// Rounds each row of w [n, k] to the 255 steps that its largest magnitude allows, and packs them with their scales and
/// sums. False where a weight is not finite.
bool pack_weight_int8(const float* w, int64_t n, int64_t k, void* packed);
/// What pack_weight_int8 wrote, 64-byte aligned.
Panels int8_panels_of(const void* packed, int64_t n, int64_t k);

/// Largest k of weights that pack_weight_bf16 writes: a rounded row of x lies on the stack.
inline constexpr int64_t kMaxBf16Depth = 65536;
/// Halves that pack_weight_bf16 writes.
int64_t packed_bf16_size(int64_t n, int64_t k);
/// Rounds w [n, k] to the nearest bfloat16, ties to even, and packs it. False where a weight is not finite then.
bool pack_weight_bf16(const float* w, int64_t n, int64_t k, uint16_t* packed);
/// What pack_weight_bf16 wrote, 64-byte aligned.
Panels bf16_panels_of(const uint16_t* packed, int64_t n, int64_t k);

/// Fast path: register-blocked over packed panels.
void gemm(const GemmParams& p, const Team& team);
/// The obvious triple loop in float64, same contract; where the weights make gemm round x, it is rounded the
/// same way first.
void gemm_ref(const GemmParams& p);

}  // namespace wam::kernels
