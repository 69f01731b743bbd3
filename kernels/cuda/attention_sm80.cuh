#pragma once

// Segmented attention with mma.sync: one block a query tile, head, batch entry and split. K and V have one buffer each;
// V of a tile arrives while its scores are computed, K of the next tile while the values are summed.
#include "arch_sm80.cuh"
#include "attention_merge.cuh"
#include "attention_softmax.cuh"

namespace wam::kernels::cuda {

/// A choice of tile. Each warp owns `row_blocks` blocks of 16 query rows.
template <int head_dim_, int key_rows_, int warps_, int row_blocks_>
struct AttentionTile {
  static constexpr int head_dim = head_dim_, key_rows = key_rows_, warps = warps_, row_blocks = row_blocks_;
  static constexpr int query_rows = 16 * row_blocks * warps, threads = 32 * warps, chunks = head_dim / 8;
  static constexpr int shared_bytes = (query_rows + 2 * key_rows) * head_dim * int(sizeof(bf16));
  static_assert(head_dim % 64 == 0 && key_rows % 16 == 0 && threads % chunks == 0);
  static_assert(query_rows % (threads / chunks) == 0 && key_rows % (threads / chunks) == 0);
};

/// The tile of each head_dim. 16 query rows a warp make each K and V fragment serve one mma, which asks shared memory
/// for as many bytes as the tensor cores of an A100 can take and for half of what those of smaller GPUs can; 32 rows
/// halve that but want twice the accumulators: with head_dim 128 they spill (compiled and seen: 140 bytes with 64 keys,
/// 24 with 32), with 64 they fit. Two blocks of 4 warps a multiprocessor, so that one computes weights while the other
/// multiplies; shared memory of 48 and 32 KiB leaves room for that everywhere, 100 KiB being the least.
template <int head_dim>
struct AttentionTileOf;
template <>
struct AttentionTileOf<128> : AttentionTile<128, 64, 4, 1> {};
template <>
struct AttentionTileOf<64> : AttentionTile<64, 64, 4, 2> {};
template <class Tile>
constexpr bool is_declared = attention_tile(false, Tile::head_dim).query_rows == Tile::query_rows &&
                             attention_tile(false, Tile::head_dim).key_rows == Tile::key_rows;
static_assert(is_declared<AttentionTileOf<128>> && is_declared<AttentionTileOf<64>>);

/// Copies `rows` rows of a head to a swizzled tile; rows from `valid` on become zeros.
template <class Tile, int rows>
__device__ __forceinline__ void copy_rows(bf16* tile, const bf16* from, int64_t ld, int valid) {
  constexpr int step = Tile::threads / Tile::chunks;
  const int chunk = int(threadIdx.x) % Tile::chunks, first = int(threadIdx.x) / Tile::chunks;
  from += first * ld + chunk * 8;
  WAM_UNROLL
  for (int row = first; row < rows; row += step, from += step * ld)
    copy_async(tile + swizzled<Tile::chunks>(row, chunk) * 8, from, row < valid || WAM_PLANTED("row_out_of_bounds"));
}

template <class Tile>
__device__ __forceinline__ void multiply_keys(Scores<Tile>& s, const bf16* q, const bf16* k) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  for (auto& block : s)
    for (auto& part : block)
      for (float& x : part) x = 0.0f;
  WAM_UNROLL
  for (int d = 0; d < Tile::head_dim / 16; ++d) {
    uint32_t a[Tile::row_blocks][4];
    WAM_UNROLL
    for (int r = 0; r < Tile::row_blocks; ++r)
      load_matrices(a[r],
                    q + swizzled<Tile::chunks>((warp * Tile::row_blocks + r) * 16 + lane % 16, 2 * d + lane / 16) * 8);
    WAM_UNROLL
    for (int n = 0; n < Tile::key_rows / 16; ++n) {
      uint32_t b[4];  // keys 0-7 and 8-15 of the block, each for both halves of the 16 channels
      load_matrices(b, k + swizzled<Tile::chunks>(n * 16 + lane / 16 * 8 + lane % 8, 2 * d + lane / 8 % 2) * 8);
      WAM_UNROLL
      for (int r = 0; r < Tile::row_blocks; ++r) {
        mma_bf16(s[r][2 * n], a[r], {b[0], b[1]});
        mma_bf16(s[r][2 * n + 1], a[r], {b[2], b[3]});
      }
    }
  }
}

template <class Tile>
__device__ __forceinline__ void sum_values(SoftmaxState<Tile>& state, const Scores<Tile>& weights, const bf16* v) {
  const int lane = int(threadIdx.x) % 32;
  WAM_UNROLL
  for (int k = 0; k < Tile::key_rows / 16; ++k) {
    uint32_t a[Tile::row_blocks][4];  // what mma leaves for two blocks of 8 keys is what it takes for one of 16
    WAM_UNROLL
    for (int r = 0; r < Tile::row_blocks; ++r) {
      WAM_UNROLL
      for (int i = 0; i < 4; ++i)
        a[r][i] = pack_bf16(weights[r][2 * k + i / 2][i % 2 * 2], weights[r][2 * k + i / 2][i % 2 * 2 + 1]);
    }
    WAM_UNROLL
    for (int d = 0; d < Tile::head_dim / 16; ++d) {
      uint32_t b[4];
      load_matrices_transposed(b, v + swizzled<Tile::chunks>(k * 16 + lane % 16, 2 * d + lane / 16) * 8);
      WAM_UNROLL
      for (int r = 0; r < Tile::row_blocks; ++r) {
        mma_bf16(state.out[r][2 * d], a[r], {b[0], b[1]});
        mma_bf16(state.out[r][2 * d + 1], a[r], {b[2], b[3]});
      }
    }
  }
}

/// The block's only split: normalised rows through shared memory (each warp its own rows), 16 bytes a store.
template <class Tile>
__device__ __forceinline__ void store_rows(const AttentionParams& p, const SoftmaxState<Tile>& state,
                                           const AttentionPlace& at, bf16* staging) {
  constexpr int rows = 16 * Tile::row_blocks;
  const int lane = int(threadIdx.x) % 32, first = int(threadIdx.x) / 32 * rows;
  WAM_UNROLL
  for (int r = 0; r < Tile::row_blocks; ++r) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int row = first + r * 16 + i * 8 + lane / 4;
      const float inverse = state.sum[r][i] > 0.0f ? 1.0f / state.sum[r][i] : 0.0f;
      WAM_UNROLL
      for (int d = 0; d < Tile::head_dim / 8; ++d)
        *reinterpret_cast<bf16x2*>(staging + swizzled<Tile::chunks>(row, d) * 8 + lane % 4 * 2) =
            pack_bf16(state.out[r][d][2 * i] * inverse, state.out[r][d][2 * i + 1] * inverse);
      if (p.lse && lane % 4 == 0 && row < at.queries.rows)
        p.lse[(int64_t{at.batch} * p.heads + at.head) * p.rows + at.queries.first_row + row] = lse_of(state, r, i);
    }
  }
  __syncwarp();
  bf16* out = p.out + at.batch * p.out_batch + at.queries.first_row * p.ldo + at.head * Tile::head_dim;
  for (int i = lane; i < rows * Tile::chunks; i += 32) {
    const int row = first + i / Tile::chunks, chunk = i % Tile::chunks;
    if (row >= at.queries.rows) continue;
    uint4 v = *reinterpret_cast<const uint4*>(staging + swizzled<Tile::chunks>(row, chunk) * 8);
    uint4* const to = reinterpret_cast<uint4*>(out + row * p.ldo + chunk * 8);
    if (p.add) {
      const uint4 before = *to;
      v = make_uint4(add_bf16(v.x, before.x), add_bf16(v.y, before.y), add_bf16(v.z, before.z),
                     add_bf16(v.w, before.w));
    }
    *to = v;
  }
}

/// Grid [query tiles, heads, batch * splits]: neighbours in x share keys, so that these stay in the L2 cache.
template <class Tile>
__global__ __launch_bounds__(Tile::threads) void attention_kernel(const __grid_constant__ AttentionParams p) {
  WAM_DYNAMIC_SHARED(shared);
  bf16* const q = reinterpret_cast<bf16*>(shared);
  bf16* const k = q + Tile::query_rows * Tile::head_dim;
  bf16* const v = k + Tile::key_rows * Tile::head_dim;
  const AttentionPlace at{.batch = int(blockIdx.z) / p.splits,
                          .head = int(blockIdx.y),
                          .split = int(blockIdx.z) % p.splits,
                          .queries = query_tile<Tile::query_rows>(p, int(blockIdx.x))};
  const int column = at.head * Tile::head_dim;
  const TileRange range = split_range(key_tiles<Tile::key_rows>(p, at.queries.group), at.split, p.splits);
  SoftmaxState<Tile> state;

  if (range.begin < range.end) {
    using Keys = KeyTile<Tile::key_rows>;
    Keys tile(p, at.queries.group, range.begin);
    copy_rows<Tile, Tile::query_rows>(q, p.q + at.batch * p.q_batch + at.queries.first_row * p.ldq + column, p.ldq,
                                      at.queries.rows);
    copy_rows<Tile, Tile::key_rows>(k, tile.segment(p).k + tile.offset(p, at.batch, column), tile.segment(p).ld,
                                    tile.rows_left());
    copy_async_commit();
    for (int t = range.begin; t < range.end; ++t) {
      if (!WAM_PLANTED("missing_wait")) copy_async_wait<0>();
      __syncthreads();  // K of this tile is here, and all warps are done with V of the tile before
      copy_rows<Tile, Tile::key_rows>(v, tile.segment(p).v + tile.offset(p, at.batch, column), tile.segment(p).ld,
                                      tile.rows_left());
      copy_async_commit();
      Scores<Tile> s;
      multiply_keys<Tile>(s, q, k);
      const int valid = tile.rows_left();
      if (valid < Tile::key_rows) mask_columns<Tile>(s, valid);
      shrink_out(state, weigh<Tile>(s, state, p.scale * kLog2E));
      const auto fetch_next = [&] {
        if (t + 1 == range.end) return;
        tile.advance(p);
        copy_rows<Tile, Tile::key_rows>(k, tile.segment(p).k + tile.offset(p, at.batch, column), tile.segment(p).ld,
                                        tile.rows_left());
        copy_async_commit();
      };
      if (WAM_PLANTED("early_release")) fetch_next();
      copy_async_wait<0>();
      if (!WAM_PLANTED("missing_barrier")) __syncthreads();  // V is here, and all warps are done with K
      if (!WAM_PLANTED("early_release")) fetch_next();
      sum_values<Tile>(state, s, v);
    }
  }
  complete_sums(state);
  if (p.splits == 1)
    store_rows<Tile>(p, state, at, q);
  else
    store_split<Tile>(p, state, at, int(threadIdx.x) / 32 * 16 * Tile::row_blocks);
}

/// Calls launch(shape, kernel, params) for the attention and, where keys are split, the merge. Nothing is launched for
/// impossible sizes: false.
template <typename Launch>
bool launch_attention_sm80(const AttentionParams& p, Launch&& launch) {
  if (!attention_possible(p)) return false;
  const auto with = [&]<class Tile>(Tile) {
    launch(LaunchShape{.grid_x = unsigned(query_tiles<Tile::query_rows>(p)),
                       .grid_y = unsigned(p.heads),
                       .grid_z = unsigned(p.batch * p.splits),
                       .threads = Tile::threads,
                       .shared_bytes = Tile::shared_bytes},
           attention_kernel<Tile>, p);
  };
  if (p.head_dim == 128)
    with(AttentionTileOf<128>{});
  else
    with(AttentionTileOf<64>{});
  if (p.splits > 1) launch_attention_merge(p, launch);
  return true;
}

}  // namespace wam::kernels::cuda
