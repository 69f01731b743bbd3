#pragma once

// Attention over keys that lie in several places: the cache of past frames (a ring, so one run of rows or two), the
// rows of this pass, the registers. No mask, no concatenation, no copy.
#include <cstdint>

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/launch.h"
#include "wamcore/kernels/cuda/tensor_map.h"

namespace wam::kernels::cuda {

inline constexpr int kMaxKeySegments = 4, kMaxQueryGroups = 4;

/// A run of keys and values, read where they lie.
struct KeySegment {
  const bf16* k = nullptr;  // [batch, rows, heads, head_dim], row stride ld, batch stride `batch_stride`, in elements
  const bf16* v = nullptr;  // the same shape and strides
  int64_t ld = 0, batch_stride = 0;
  int32_t first_row = 0, rows = 0;  // which rows are seen; AttentionParams::live has the last word
  int32_t buffer_rows = 0;          // rows that k and v hold; the sm_90a kernel wants to know
};

/// Query rows that see the same keys.
struct QueryGroup {
  int32_t first_row = 0, rows = 0;
  int32_t segment_count = 0;
  KeySegment segments[kMaxKeySegments];
};

/// Which rows of a segment are seen, in device memory, so that a captured graph follows a cache that moves.
struct LiveRows {
  int32_t first_row, rows;
};

/// out = softmax(scale * q K^T) V for each query group over all rows of its segments together.
struct AttentionParams {
  const bf16* q = nullptr;  // [batch, rows, heads, head_dim], row stride ldq, batch stride q_batch
  bf16* out = nullptr;      // [batch, rows, heads, head_dim], row stride ldo, batch stride out_batch
  float* lse = nullptr;     // [batch, heads, rows], natural logarithm of the softmax's sum; may be nullptr
  int64_t ldq = 0, q_batch = 0, ldo = 0, out_batch = 0;
  int32_t batch = 1, rows = 0, heads = 0, head_dim = 0;  // head_dim: 64 or 128
  int32_t group_count = 0;                               // groups hold all rows, in order
  QueryGroup groups[kMaxQueryGroups];
  const LiveRows* live = nullptr;  // device memory, [group_count, kMaxKeySegments]; may be nullptr
  float scale = 1.0f;
  bool add = false;            // out += instead of out =: a second softmax over other keys
  int32_t splits = 1;          // parts into which each query tile's keys are divided, each a block of its own
  float* split_out = nullptr;  // [splits, batch, rows, heads, head_dim]; may be nullptr if splits is 1
  float* split_lse = nullptr;  // [splits, batch, heads, rows]; may be nullptr if splits is 1
};

/// With mma.sync, on sm_80 and everything after it. All pointers 16-byte aligned, all strides multiples of 8 elements.
LaunchResult attention_sm80(const AttentionParams& p, Stream stream);

/// AttentionParams and where bulk copies find rows of [batch, rows, heads, head_dim].
struct AttentionParamsSm90 {
  AttentionParams attention;
  TensorMap q;
  TensorMap k[kMaxQueryGroups][kMaxKeySegments], v[kMaxQueryGroups][kMaxKeySegments];
  int32_t blocks = 0;  // that walk over the tiles
};

/// Makes the maps. Done once, before a graph is captured.
PlanResult plan_attention_sm90(AttentionParamsSm90* plan, const AttentionParams& p, int multiprocessors);
/// With wgmma and TMA, on sm_90a. Whole tiles are fetched from k and v, rows that are not seen included: all rows of
/// these buffers must hold finite numbers, which a cache has when it was zeroed once.
LaunchResult attention_sm90(const AttentionParamsSm90& plan, Stream stream);

/// Splits that make `blocks` = query tiles * heads * batch fill `slots` = multiprocessors * blocks that one of them
/// holds, for `key_tiles` tiles of keys. A split costs its share of the keys, and its rows a trip through memory in
/// float32 that is worth about two tiles.
constexpr int attention_splits(int blocks, int slots, int key_tiles) {
  int best = 1, best_cost = 0;
  for (int splits = 1; splits <= 8 && splits <= key_tiles; ++splits) {
    const int waves = (blocks * splits + slots - 1) / slots, tiles = (key_tiles + splits - 1) / splits;
    const int cost = waves * (tiles + (splits > 1 ? 2 : 0));
    if (splits == 1 || cost < best_cost) {
      best = splits;
      best_cost = cost;
    }
  }
  return best;
}

/// The tiles of the kernels, rows of queries and keys, and how many blocks a multiprocessor holds. A tile of the
/// mma.sync kernel is smaller where a head is wider.
struct AttentionTileShape {
  int query_rows, key_rows, blocks;
};
constexpr AttentionTileShape attention_tile(bool sm90, int head_dim) {
  if (sm90) return {128, 128, 1};
  return {head_dim == 128 ? 64 : 128, 64, 2};
}
/// The same for an attention that sees `keys` rows.
inline int attention_splits(const AttentionParams& p, AttentionTileShape tile, int multiprocessors, int64_t keys) {
  int blocks = 0;
  for (int g = 0; g < p.group_count; ++g) blocks += (p.groups[g].rows + tile.query_rows - 1) / tile.query_rows;
  const int tiles = static_cast<int>((keys + tile.key_rows - 1) / tile.key_rows);
  return attention_splits(blocks * p.heads * p.batch, multiprocessors * tile.blocks, tiles);
}

}  // namespace wam::kernels::cuda
