#pragma once

// The softmax of attention kernels, on scores as mma.sync and wgmma leave them: a lane has columns 2 c and 2 c + 1 of
// rows r and r + 8 in each block of 8 columns, with c = lane % 4 and r = lane / 4. A Tile has head_dim, key_rows and
// row_blocks, the blocks of 16 query rows that a warp owns.
#include "attention_keys.cuh"

namespace wam::kernels::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;

template <class Tile>
using Scores = float[Tile::row_blocks][Tile::key_rows / 8][4];

/// What a warp knows about its rows. Scores are in units of log2: exp2(score - reference) is a key's weight.
template <class Tile>
struct SoftmaxState {
  float out[Tile::row_blocks][Tile::head_dim / 8][4];  // weighted sum of values, as mma leaves it
  float reference[Tile::row_blocks][2];                // of the lane's two rows a block
  float sum[Tile::row_blocks][2];                      // of weights, over this lane's columns only

  __device__ __forceinline__ SoftmaxState() {
    for (int r = 0; r < Tile::row_blocks; ++r) {
      for (auto& block : out[r])
        for (float& x : block) x = 0.0f;
      for (int i = 0; i < 2; ++i) {
        reference[r][i] = -INFINITY;
        sum[r][i] = 0.0f;
      }
    }
  }
};

/// Columns from `valid` on get no weight. Called for the last tile of a segment only.
template <class Tile>
__device__ __forceinline__ void mask_columns(Scores<Tile>& s, int valid) {
  if (WAM_PLANTED("mask_off_by_one")) ++valid;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int n = 0; n < Tile::key_rows / 8; ++n) {
      WAM_UNROLL
      for (int i = 0; i < 4; ++i)
        if (n * 8 + int(threadIdx.x) % 4 * 2 + i % 2 >= valid) s[r][n][i] = -INFINITY;
    }
  }
}

/// What the sums so far are to be multiplied with after the reference moved.
template <class Tile>
struct Shrink {
  bool any = false;  // of the warp's rows; else `by` is not set
  float by[Tile::row_blocks][2];
};

template <class Tile>
__device__ __forceinline__ void shrink_out(SoftmaxState<Tile>& state, const Shrink<Tile>& shrink) {
  if (!shrink.any) return;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int d = 0; d < Tile::head_dim / 8; ++d) {
      WAM_UNROLL
      for (int i = 0; i < 4; ++i) state.out[r][d][i] *= shrink.by[r][i / 2];
    }
  }
}

/// Moves the references to the scores' maxima where one outgrew its reference by more than 2^8. Weights up to 256 lose
/// nothing in bf16 or in the float32 sums, and most tiles leave the output as it is: the function is the same, only its
/// rounding differs.
template <class Tile>
__device__ __forceinline__ Shrink<Tile> move_references(const Scores<Tile>& s, SoftmaxState<Tile>& state,
                                                        float scale_log2) {
  constexpr float headroom = 8.0f;
  float top[Tile::row_blocks][2];
  bool outgrown = false;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) {
      float most = s[r][0][2 * i];
      WAM_UNROLL
      for (int n = 0; n < Tile::key_rows / 8; ++n) most = fmaxf(most, fmaxf(s[r][n][2 * i], s[r][n][2 * i + 1]));
      top[r][i] = max_over_lanes<4>(most) * scale_log2;
      outgrown |= top[r][i] > state.reference[r][i] + headroom;
    }
  }
  Shrink<Tile> shrink;
  shrink.any = __any_sync(0xffffffffu, outgrown) != 0;
  if (!shrink.any) return shrink;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float moved = fmaxf(state.reference[r][i], top[r][i]);
      shrink.by[r][i] = exp2_fast(state.reference[r][i] - moved);
      state.reference[r][i] = moved;
      state.sum[r][i] *= shrink.by[r][i];
    }
  }
  return shrink;
}

/// Turns scores to weights and adds them up. The caller shrinks the output, which a product in flight may still change.
template <class Tile>
__device__ __forceinline__ Shrink<Tile> weigh(Scores<Tile>& s, SoftmaxState<Tile>& state, float scale_log2) {
  const Shrink<Tile> shrink = move_references<Tile>(s, state, scale_log2);
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int n = 0; n < Tile::key_rows / 8; ++n) {
      WAM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float weight = exp2_fast(fmaf(s[r][n][i], scale_log2, -state.reference[r][i / 2]));
        state.sum[r][i / 2] += weight;
        s[r][n][i] = weight;
      }
    }
  }
  return shrink;
}

/// Completes the sums of weights, of which each lane has its own columns.
template <class Tile>
__device__ __forceinline__ void complete_sums(SoftmaxState<Tile>& state) {
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) state.sum[r][i] = sum_over_lanes<4>(state.sum[r][i]);
  }
}

/// Where a block's results go.
struct AttentionPlace {
  int batch, head, split;
  QueryTile queries;
};

/// lse of the calling lane's row `i` of block `r`, from the complete sum.
template <class Tile>
__device__ __forceinline__ float lse_of(const SoftmaxState<Tile>& state, int r, int i) {
  constexpr float ln2 = 0.6931471805599453f;
  return state.sum[r][i] > 0.0f ? (state.reference[r][i] + log2f(state.sum[r][i])) * ln2 : -INFINITY;
}

/// One split of several: normalised rows in float32 and their lse, of a warp whose rows start at `first`. A split
/// without keys writes the lse alone.
template <class Tile>
__device__ __forceinline__ void store_split(const AttentionParams& p, const SoftmaxState<Tile>& state,
                                            const AttentionPlace& at, int first) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t entry = int64_t{at.split} * p.batch + at.batch;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = first + r * 16 + i * 8 + lane / 4;
      if (row >= at.queries.rows) continue;
      const int64_t query = at.queries.first_row + row;
      if (lane % 4 == 0) p.split_lse[(entry * p.heads + at.head) * p.rows + query] = lse_of(state, r, i);
      if (!(state.sum[r][i] > 0.0f)) continue;
      const float inverse = 1.0f / state.sum[r][i];
      float* out = p.split_out + ((entry * p.rows + query) * p.heads + at.head) * Tile::head_dim + lane % 4 * 2;
      WAM_UNROLL
      for (int d = 0; d < Tile::head_dim / 8; ++d)
        *reinterpret_cast<float2*>(out + d * 8) =
            make_float2(state.out[r][d][2 * i] * inverse, state.out[r][d][2 * i + 1] * inverse);
    }
  }
}

}  // namespace wam::kernels::cuda
