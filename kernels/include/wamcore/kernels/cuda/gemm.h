#pragma once

#include <cstdint>

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/fp8.h"
#include "wamcore/kernels/cuda/launch.h"
#include "wamcore/kernels/cuda/tensor_map.h"

namespace wam::kernels::cuda {

/// What happens to a product before it is stored.
enum class GemmEpilogue {
  bias,           // y = x w^T + bias
  bias_gelu,      // y = gelu_tanh(x w^T + bias)
  gate_residual,  // y = residual + gate * (x w^T + bias), the gate chosen by the row's time
  qkv,            // the columns go to up to three places; sums of squares of some for the norm that follows
};

/// Sums of squares are kept per this many columns, so that no two blocks add to one number and order never matters.
inline constexpr int kSquareStripe = 64;

/// y = epilogue(x w^T + bias), all in bf16 with float32 sums.
struct GemmParams {
  GemmEpilogue epilogue = GemmEpilogue::bias;
  const bf16* x = nullptr;     // [m, k], row stride ldx
  const bf16* w = nullptr;     // [n, k], row stride ldw: a Linear as PyTorch keeps it
  const bf16* bias = nullptr;  // [n]; may be nullptr
  bf16* y = nullptr;           // [m, n], row stride ldy; unused by qkv
  int32_t m = 0, n = 0, k = 0;
  int64_t ldx = 0, ldw = 0, ldy = 0;
  // gate_residual
  const float* gate = nullptr;        // [time rows, n], row stride ldg
  const float* gate_base = nullptr;   // [n], added to each row of the gate: the layer's table; nullptr: none
  const int32_t* gate_row = nullptr;  // [m], the time row of each row; nullptr: row 0 for all
  const bf16* residual = nullptr;     // [m, n], row stride ldr; may be y
  int64_t ldg = 0, ldr = 0;
  // qkv, where n is `parts` times a multiple of kSquareStripe
  int32_t parts = 3;        // queries, keys and values; keys and values; queries
  int32_t normed = 2;       // the first so many have sums of squares
  bf16* part[3] = {};       // [m, n / parts] each, row strides ld_part
  int64_t ld_part[3] = {};  //
  float* square = nullptr;  // [m, normed, n / parts / kSquareStripe], of values as stored; may be nullptr
};

/// What every kernel asks of its parameters: n and k and all strides multiples of 8, all pointers 16-byte aligned, what
/// the epilogue needs is there.
inline bool gemm_possible(const GemmParams& p) {
  const auto ok = [](const void* pointer, int64_t stride, int64_t least) {
    return pointer && reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0 && stride >= least;
  };
  if (p.m < 1 || p.n < 8 || p.k < 8 || p.n % 8 || p.k % 8) return false;
  if (!ok(p.x, p.ldx, p.k) || !ok(p.w, p.ldw, p.k) || (p.bias && !ok(p.bias, 0, 0))) return false;
  if (p.epilogue == GemmEpilogue::qkv) {
    if (p.parts < 1 || p.parts > 3 || p.normed < 0 || p.normed > p.parts) return false;
    if (p.n % (p.parts * kSquareStripe)) return false;
    for (int i = 0; i < p.parts; ++i)
      if (!ok(p.part[i], p.ld_part[i], p.n / p.parts)) return false;
    return true;
  }
  if (p.epilogue == GemmEpilogue::gate_residual &&
      (!ok(p.gate, p.ldg, p.n) || !ok(p.residual, p.ldr, p.n) || (p.gate_base && !ok(p.gate_base, 0, 0))))
    return false;
  return ok(p.y, p.ldy, p.n);
}

/// Quantised operands of a product: x [m, k] with a scale a row, w [n, k] with a scale a row, row strides in elements.
struct Fp8Operands {
  const e4m3* x = nullptr;
  const e4m3* w = nullptr;
  const float* x_scale = nullptr;  // [m]
  const float* w_scale = nullptr;  // [n]
  int64_t ldx = 0, ldw = 0;        // multiples of 16
};

/// A product of quantised operands; x and w of `gemm` are left out.
struct Fp8Product {
  GemmParams gemm;
  Fp8Operands operands;
};

/// gemm_possible() for quantised operands: k and their strides are multiples of 16, pointers 16-byte aligned.
inline bool gemm_fp8_possible(const GemmParams& p, const Fp8Operands& operands) {
  GemmParams rest = p;
  rest.x = rest.w = reinterpret_cast<const bf16*>(operands.x);
  rest.ldx = rest.ldw = p.k;
  if (!gemm_possible(rest) || p.k % 16 || !operands.x_scale || !operands.w_scale) return false;
  if (operands.ldx % 16 || operands.ldw % 16 || operands.ldx < p.k || operands.ldw < p.k) return false;
  return operands.w && reinterpret_cast<uintptr_t>(operands.w) % 16 == 0;
}

/// With mma.sync, on sm_80 and everything after it.
LaunchResult gemm_sm80(const GemmParams& p, int multiprocessors, Stream stream);
/// With mma.sync of e4m3, on sm_89 and everything after it.
LaunchResult gemm_fp8_sm89(const Fp8Product& p, int multiprocessors, Stream stream);

/// The mma.sync kernels' tiles, rows x columns, of bf16 and e4m3 alike.
struct GemmTileShape {
  int rows, cols;
};
inline constexpr GemmTileShape kGemmTilesSm80[] = {{128, 128}, {64, 128}, {64, 64}};

/// Index of the tile that ends first on `sms` multiprocessors with `resident` blocks of it on each. A full tile costs
/// its area times `cost`, in eighths, once for each block beside it. What is left of the last wave runs as long as a
/// whole one.
constexpr int gemm_tile_of_least_time(int m, int n, int sms, const int (&resident)[3], const int (&cost)[3]) {
  int best = 0;
  int64_t best_time = 0;
  for (int i = 0; i < 3; ++i) {
    const GemmTileShape t = kGemmTilesSm80[i];
    const int64_t tiles = int64_t{(m + t.rows - 1) / t.rows} * ((n + t.cols - 1) / t.cols);
    const int64_t time =
        (tiles + resident[i] * sms - 1) / (resident[i] * sms) * resident[i] * t.rows * t.cols * cost[i];
    if (i == 0 || time < best_time) {
      best = i;
      best_time = time;
    }
  }
  return best;
}
/// In bf16 the smaller tiles read more of shared memory per product (3/2 and 5/2 of the largest one's), of which a half
/// hides.
constexpr int gemm_tile_sm80(int m, int n, int sms) {
  return gemm_tile_of_least_time(m, n, sms, {2, 2, 2}, {8, 10, 14});
}
/// In e4m3 shared memory is far from binding, but the smaller tiles read more of the L2 (3/2 and 2 times as much).
constexpr int gemm_tile_fp8_sm89(int m, int n, int sms) {
  return gemm_tile_of_least_time(m, n, sms, {1, 2, 2}, {8, 9, 11});
}

/// The wgmma kernel's tiles: 128 rows, this many columns.
inline constexpr int kGemmRowsSm90 = 128;
inline constexpr int kGemmColsSm90[] = {256, 192, 128};

/// Tiles of `cols` columns.
constexpr int gemm_tiles_sm90(int m, int n, int cols) {
  return (m + kGemmRowsSm90 - 1) / kGemmRowsSm90 * ((n + cols - 1) / cols);
}

/// A tile (of kGemmColsSm90) and the parts into which k is divided.
struct GemmChoiceSm90 {
  int tile = 0, splits = 1;
};

/// What ends first on `sms` multiprocessors, one block on each, with `slices` slices of k. A slice costs its columns,
/// and sixteen more for what it costs at any width (its barriers, and its rows of x: an mma of 256, 192 and 128 columns
/// reads 80, 85 and 96 bytes of shared memory a cycle, of 128 that are there). At 1785 rows and 132 multiprocessors,
/// 5120 columns are three waves of 256 (70 % full) or three of 192 (95 % full). Few rows leave few tiles: 125 rows
/// times 3072 columns are 24, and one multiprocessor in five could not read the weights at the speed of the memory.
/// Then k is divided; writing and adding up a part costs about two slices.
constexpr GemmChoiceSm90 gemm_choice_sm90(int m, int n, int slices, int sms, int widest = 0) {
  GemmChoiceSm90 best;
  int64_t best_cost = -1;
  for (int tile = widest; tile < 3; ++tile)
    for (int splits = 1; splits <= 8 && splits <= slices; ++splits) {
      const int64_t items = int64_t{gemm_tiles_sm90(m, n, kGemmColsSm90[tile])} * splits;
      const int64_t steps = (slices + splits - 1) / splits + (splits > 1 ? 2 * splits + 2 : 0);
      const int64_t cost = (items + sms - 1) / sms * steps * (kGemmColsSm90[tile] + 16);
      if (best_cost >= 0 && cost >= best_cost) continue;
      best = {tile, splits};
      best_cost = cost;
    }
  return best;
}
/// The tile alone, where there is no scratch memory to divide k.
constexpr int gemm_tile_sm90(int m, int n, int sms) { return gemm_choice_sm90(m, n, 1, sms).tile; }
/// For bf16, where a slice has 64 channels.
constexpr GemmChoiceSm90 gemm_choice_bf16_sm90(int m, int n, int k, int sms) {
  return gemm_choice_sm90(m, n, (k + 63) / 64, sms);
}
/// For e4m3, where a slice has 128 channels; a tile needs its sums twice, so that 256 columns do not fit the registers.
constexpr GemmChoiceSm90 gemm_choice_fp8_sm90(int m, int n, int k, int sms) {
  return gemm_choice_sm90(m, n, (k + 127) / 128, sms, 1);
}

/// Scratch memory of split products: floats, and a counter a tile.
struct GemmScratch {
  float* partial = nullptr;    // [gemm_split_floats()]
  int32_t* arrived = nullptr;  // [gemm_tiles_sm90()], zero
};
constexpr int64_t gemm_split_floats(int m, int n, GemmChoiceSm90 choice) {
  const int cols = kGemmColsSm90[choice.tile];
  return choice.splits > 1 ? int64_t{gemm_tiles_sm90(m, n, cols)} * choice.splits * kGemmRowsSm90 * cols : 0;
}

/// GemmParams and where bulk copies find x [m, k] and w [n, k]; those are e4m3 where there are scales, and gemm.x and
/// gemm.w are nullptr.
struct GemmParamsSm90 {
  GemmParams gemm;
  const float* x_scale = nullptr;  // [m]
  const float* w_scale = nullptr;  // [n]
  TensorMap x, w;
  int tile = 0;    // of kGemmColsSm90
  int splits = 1;  // parts of k, each a tile of its own; the last to end adds them up, always in the same order
  float* partial = nullptr;    // [gemm_split_floats(...)]; may be nullptr if splits is 1
  int32_t* arrived = nullptr;  // [tiles], zero before and after; may be nullptr if splits is 1
  int blocks = 0;              // that walk over the tiles
};

/// What plans for both kinds of operand share.
inline bool plan_gemm_blocks_sm90(GemmParamsSm90* plan, GemmChoiceSm90 choice, const GemmScratch& scratch, int slices,
                                  int multiprocessors) {
  if (choice.tile < 0 || choice.tile > 2 || choice.splits < 1 || choice.splits > slices || multiprocessors < 1)
    return false;
  if (choice.splits > 1 && (!scratch.partial || !scratch.arrived)) return false;
  plan->tile = choice.tile;
  plan->splits = choice.splits;
  plan->partial = scratch.partial;
  plan->arrived = scratch.arrived;
  const int items = gemm_tiles_sm90(plan->gemm.m, plan->gemm.n, kGemmColsSm90[choice.tile]) * choice.splits;
  plan->blocks = items < multiprocessors ? items : multiprocessors;
  return true;
}

/// Makes the maps. Done once, before a graph is captured.
inline PlanResult plan_gemm_sm90(GemmParamsSm90* plan, const GemmParams& p, GemmChoiceSm90 choice,
                                 const GemmScratch& scratch, int multiprocessors) {
  if (!gemm_possible(p)) return kImpossiblePlan;
  *plan = {.gemm = p};
  if (!plan_gemm_blocks_sm90(plan, choice, scratch, (p.k + 63) / 64, multiprocessors)) return kImpossiblePlan;
  const auto map = [&](TensorMap* to, const bf16* base, int64_t rows, int64_t ld, int box) {
    return make_tensor_map(to, {.base = base, .sizes = {p.k, rows}, .strides = {2 * ld}, .box = {64, box}});
  };
  if (const int refused = map(&plan->x, p.x, p.m, p.ldx, kGemmRowsSm90)) return refused;
  return map(&plan->w, p.w, p.n, p.ldw, kGemmColsSm90[choice.tile]);
}
inline PlanResult plan_gemm_sm90(GemmParamsSm90* plan, const GemmParams& p, int tile, int multiprocessors) {
  return plan_gemm_sm90(plan, p, GemmChoiceSm90{tile, 1}, {}, multiprocessors);
}
/// With wgmma, on sm_90a.
LaunchResult gemm_sm90(const GemmParamsSm90& plan, Stream stream);

/// As plan_gemm_sm90; x and w of `p` are left out.
inline PlanResult plan_gemm_fp8_sm90(GemmParamsSm90* plan, const GemmParams& p, const Fp8Operands& operands,
                                     GemmChoiceSm90 choice, const GemmScratch& scratch, int multiprocessors) {
  if (!gemm_fp8_possible(p, operands) || choice.tile < 1) return kImpossiblePlan;
  *plan = {.gemm = p, .x_scale = operands.x_scale, .w_scale = operands.w_scale};
  if (!plan_gemm_blocks_sm90(plan, choice, scratch, (p.k + 127) / 128, multiprocessors)) return kImpossiblePlan;
  const auto map = [&](TensorMap* to, const e4m3* base, int64_t rows, int64_t ld, int box) {
    return make_tensor_map(
        to, {.base = base, .element_bytes = 1, .sizes = {p.k, rows}, .strides = {ld}, .box = {128, box}});
  };
  if (const int refused = map(&plan->x, operands.x, p.m, operands.ldx, kGemmRowsSm90)) return refused;
  return map(&plan->w, operands.w, p.n, operands.ldw, kGemmColsSm90[choice.tile]);
}
/// With wgmma of e4m3, on sm_90a.
LaunchResult gemm_fp8_sm90(const GemmParamsSm90& plan, Stream stream);

}  // namespace wam::kernels::cuda
