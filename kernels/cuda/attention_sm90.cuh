#pragma once

// Segmented attention with wgmma: a producer thread brings Q, K and V by bulk copies, two warpgroups compute 64 query
// rows each. Scores of the next keys are multiplied while the values of the last ones are summed and the softmax runs;
// the two warpgroups take turns at the tensor cores, so that one multiplies while the other computes weights. Blocks
// stay and walk over the tiles.
#include "arch_sm90.cuh"
#include "attention_merge.cuh"
#include "attention_softmax.cuh"

namespace wam::kernels::cuda {

/// Two stages each of K and V; Q has one.
template <int head_dim_, int key_rows_>
struct AttentionTileSm90 {
  static constexpr int head_dim = head_dim_, key_rows = key_rows_, row_blocks = 1;
  static constexpr int query_rows = 128, threads = 384, stages = 2;
  static constexpr int boxes = head_dim / 64;  // a box is 64 channels, a line of the 128-byte swizzle
  static constexpr int query_bytes = query_rows * head_dim * 2, key_bytes = key_rows * head_dim * 2;
  static constexpr int shared_bytes = query_bytes + 2 * stages * key_bytes + (2 + 4 * stages) * int(sizeof(uint64_t));
  static_assert(key_rows % 16 == 0 && key_bytes % 1024 == 0 && shared_bytes <= 227 * 1024);
};

/// 128 keys, where a thread has 64 scores, 64 sums and 32 pairs of weights at once and 232 registers for all. 176 keys
/// would need a fifth fewer passes through the softmax's fixed part but 88 scores and 44 pairs; which is faster is for
/// a device to say.
template <int head_dim>
using AttentionTileOfSm90 = AttentionTileSm90<head_dim, 128>;
static_assert(attention_tile(true, 128).query_rows == AttentionTileOfSm90<128>::query_rows &&
              attention_tile(true, 128).key_rows == AttentionTileOfSm90<128>::key_rows);

/// What block and producer share.
template <class Tile>
struct AttentionShared {
  __device__ explicit AttentionShared(unsigned char* shared)
      : q(shared),
        k(q + Tile::query_bytes),
        v(k + Tile::stages * Tile::key_bytes),
        q_full(reinterpret_cast<uint64_t*>(v + Tile::stages * Tile::key_bytes)),
        q_empty(q_full + 1),
        k_full(q_empty + 1),
        k_empty(k_full + Tile::stages),
        v_full(k_empty + Tile::stages),
        v_empty(v_full + Tile::stages) {}
  unsigned char *q, *k, *v;  // [boxes, rows, 64], k and v once a stage
  uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;
};

/// Tile `index` of all: query tiles first, so that blocks at work together share keys.
template <class Tile>
__device__ __forceinline__ AttentionPlace attention_place(const AttentionParams& p, int index) {
  const int tiles = query_tiles<Tile::query_rows>(p), entry = index / tiles / p.heads;
  return {.batch = entry / p.splits,
          .head = index / tiles % p.heads,
          .split = entry % p.splits,
          .queries = query_tile<Tile::query_rows>(p, index % tiles)};
}
template <class Tile>
__host__ __device__ __forceinline__ int attention_tiles(const AttentionParams& p) {
  return query_tiles<Tile::query_rows>(p) * p.heads * p.batch * p.splits;
}
template <class Tile>
__device__ __forceinline__ TileRange key_range(const AttentionParams& p, const AttentionPlace& at) {
  return split_range(key_tiles<Tile::key_rows>(p, at.queries.group), at.split, p.splits);
}

/// One head's rows from `row` on, box by box.
template <class Tile, int rows>
__device__ __forceinline__ void copy_head(const TensorMap& map, uint64_t* full, unsigned char* to, int row,
                                          const AttentionPlace& at) {
  barrier_arrive_expect(full, rows * Tile::head_dim * 2);
  WAM_UNROLL
  for (int box = 0; box < Tile::boxes; ++box)
    copy_box(map, full, to + box * rows * 128, {box * 64, at.head, row, at.batch});
}

/// The producer: K runs one tile ahead of V, as its users do.
template <class Tile>
__device__ __forceinline__ void attention_produce(const AttentionParamsSm90& plan,
                                                  const AttentionShared<Tile>& shared) {
  const AttentionParams& p = plan.attention;
  RingPosition<Tile::stages> at_k, at_v;
  unsigned q_parity = 0;
  for (int index = int(blockIdx.x); index < attention_tiles<Tile>(p); index += int(gridDim.x)) {
    const AttentionPlace at = attention_place<Tile>(p, index);
    const TileRange range = key_range<Tile>(p, at);
    if (range.begin == range.end) continue;
    barrier_wait(shared.q_empty, q_parity ^ 1);
    q_parity ^= 1;
    copy_head<Tile, Tile::query_rows>(plan.q, shared.q_full, shared.q, at.queries.first_row, at);
    const int g = at.queries.group;
    using Keys = KeyTile<Tile::key_rows>;
    const auto copy_k = [&](const Keys& tile) {
      if (!WAM_PLANTED("no_wait_for_empty")) barrier_wait(&shared.k_empty[at_k.stage], at_k.parity ^ 1);
      copy_head<Tile, Tile::key_rows>(plan.k[g][tile.segment_index()], &shared.k_full[at_k.stage],
                                      shared.k + at_k.stage * Tile::key_bytes, tile.row(), at);
      at_k.advance();
    };
    Keys ahead(p, g, range.begin), tile = ahead;
    copy_k(ahead);
    for (int t = range.begin; t < range.end; ++t) {
      if (t + 1 < range.end) {
        ahead.advance(p);
        copy_k(ahead);
      }
      barrier_wait(&shared.v_empty[at_v.stage], at_v.parity ^ 1);
      copy_head<Tile, Tile::key_rows>(plan.v[g][tile.segment_index()], &shared.v_full[at_v.stage],
                                      shared.v + at_v.stage * Tile::key_bytes,
                                      tile.row() + (WAM_PLANTED("row_off_by_one") ? 1 : 0), at);
      at_v.advance();
      tile = ahead;
    }
  }
}

/// Starts scores = q k^T for the 64 rows of warpgroup `group`.
template <class Tile>
__device__ __forceinline__ void start_scores(Scores<Tile>& s, const unsigned char* q, const unsigned char* k,
                                             int group) {
  hold(s[0]);
  wgmma_fence();
  WAM_UNROLL
  for (int d = 0; d < Tile::head_dim / 16; ++d)
    wgmma_ss<Tile::key_rows>(s[0],
                             operand_descriptor(q + (d / 4 * Tile::query_rows + group * 64) * 128 + d % 4 * 32, 1024),
                             operand_descriptor(k + d / 4 * Tile::key_rows * 128 + d % 4 * 32, 1024), d > 0);
  wgmma_commit();
}

/// Weights in bf16, as the first operand of the product with V.
template <class Tile>
using Weights = uint32_t[Tile::key_rows / 16][4];

template <class Tile>
__device__ __forceinline__ void pack_weights(Weights<Tile>& weights, const Scores<Tile>& s) {
  WAM_UNROLL
  for (int k = 0; k < Tile::key_rows / 16; ++k) {
    WAM_UNROLL
    for (int i = 0; i < 4; ++i)
      weights[k][i] = pack_bf16(s[0][2 * k + i / 2][i % 2 * 2], s[0][2 * k + i / 2][i % 2 * 2 + 1]);
  }
}

/// Starts out += weights v. V lies as [keys, channels]: eight keys are a group of lines, 64 channels a block.
template <class Tile>
__device__ __forceinline__ void start_values(SoftmaxState<Tile>& state, const Weights<Tile>& weights,
                                             const unsigned char* v) {
  hold(state.out[0]);
  wgmma_fence();
  WAM_UNROLL
  for (int k = 0; k < Tile::key_rows / 16; ++k)
    wgmma_rs<Tile::head_dim>(state.out[0], weights[k], operand_descriptor(v + k * 16 * 128, 1024, Tile::key_rows * 128),
                             true);
  wgmma_commit();
}

/// The block's only split, straight from registers: quads write 16 bytes.
template <class Tile>
__device__ __forceinline__ void store_fragments(const AttentionParams& p, const SoftmaxState<Tile>& state,
                                                const AttentionPlace& at, int first) {
  const int lane = int(threadIdx.x) % 32;
  WAM_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = first + i * 8 + lane / 4;
    if (row >= at.queries.rows && !WAM_PLANTED("store_out_of_bounds")) continue;
    const int64_t query = at.queries.first_row + row;
    if (p.lse && lane % 4 == 0) p.lse[(int64_t{at.batch} * p.heads + at.head) * p.rows + query] = lse_of(state, 0, i);
    const float inverse = state.sum[0][i] > 0.0f ? 1.0f / state.sum[0][i] : 0.0f;
    bf16* out = p.out + at.batch * p.out_batch + query * p.ldo + at.head * Tile::head_dim + lane % 4 * 2;
    WAM_UNROLL
    for (int d = 0; d < Tile::head_dim / 8; ++d) {
      const bf16x2 v = pack_bf16(state.out[0][d][2 * i] * inverse, state.out[0][d][2 * i + 1] * inverse);
      bf16x2* const to = reinterpret_cast<bf16x2*>(out + d * 8);
      *to = p.add ? add_bf16(v, *to) : v;
    }
  }
}

/// The keys of one tile of queries. Returns with nothing in flight.
template <class Tile>
class AttentionConsumer {
 public:
  __device__ AttentionConsumer(const AttentionParams& p, const AttentionShared<Tile>& shared)
      : p_(p), shared_(shared), group_(int(threadIdx.x) / 128 - 1) {
    if (group_ == 1) pass_turn();  // the first turn is group 0's
  }

  __device__ __forceinline__ void run(SoftmaxState<Tile>& state, const AttentionPlace& at, TileRange range) {
    KeyTile<Tile::key_rows> tile(p_, at.queries.group, range.begin);
    Scores<Tile> s;
    Weights<Tile> weights;
    barrier_wait(shared_.q_full, q_parity_);
    q_parity_ ^= 1;
    barrier_wait(&shared_.k_full[at_k_.stage], at_k_.parity);
    start_scores<Tile>(s, shared_.q, shared_.k + at_k_.stage * Tile::key_bytes, group_);
    finish_scores<0>(s, tile.rows_left());
    static_cast<void>(weigh<Tile>(s, state, p_.scale * kLog2E));  // there is nothing yet to shrink
    pack_weights<Tile>(weights, s);
    for (int t = range.begin + 1; t < range.end; ++t) {
      tile.advance(p_);
      barrier_wait(&shared_.k_full[at_k_.stage], at_k_.parity);
      take_turn();
      start_scores<Tile>(s, shared_.q, shared_.k + at_k_.stage * Tile::key_bytes, group_);
      if (!WAM_PLANTED("no_wait_for_values")) barrier_wait(&shared_.v_full[at_v_.stage], at_v_.parity);
      start_values<Tile>(state, weights, shared_.v + at_v_.stage * Tile::key_bytes);
      pass_turn();
      finish_scores<1>(s, tile.rows_left());
      const Shrink<Tile> shrink = weigh<Tile>(s, state, p_.scale * kLog2E);
      finish_values(state, weights);
      shrink_out(state, shrink);
      pack_weights<Tile>(weights, s);
    }
    release(shared_.q_empty);
    barrier_wait(&shared_.v_full[at_v_.stage], at_v_.parity);
    start_values<Tile>(state, weights, shared_.v + at_v_.stage * Tile::key_bytes);
    finish_values(state, weights);
  }

  /// After the last tile: the turn that nobody took.
  __device__ __forceinline__ void finish() {
    if (group_ == 0) take_turn();
  }

 private:
  __device__ __forceinline__ void take_turn() { sync_some(1 + group_, 256); }
  __device__ __forceinline__ void pass_turn() { arrive_some(2 - group_, 256); }
  __device__ __forceinline__ void release(uint64_t* empty) {
    if (leads_warp()) barrier_arrive(empty);
  }
  /// Waits for the scores, `pending` products younger than they may still run.
  template <int pending>
  __device__ __forceinline__ void finish_scores(Scores<Tile>& s, int valid) {
    if (WAM_PLANTED("early_release")) release(&shared_.k_empty[at_k_.stage]);
    wgmma_wait<pending>();
    hold(s[0]);
    if (!WAM_PLANTED("early_release")) release(&shared_.k_empty[at_k_.stage]);
    at_k_.advance();
    if (valid < Tile::key_rows) mask_columns<Tile>(s, valid);
  }
  __device__ __forceinline__ void finish_values(SoftmaxState<Tile>& state, Weights<Tile>& weights) {
    wgmma_wait<0>();
    hold(state.out[0]);
    hold(weights);
    release(&shared_.v_empty[at_v_.stage]);
    at_v_.advance();
  }

  const AttentionParams& p_;
  const AttentionShared<Tile>& shared_;
  int group_;
  RingPosition<Tile::stages> at_k_, at_v_;
  unsigned q_parity_ = 0;
};

/// Grid [as many blocks as multiprocessors, or tiles if those are fewer].
template <class Tile>
__global__ __launch_bounds__(Tile::threads,
                             1) void attention_kernel_sm90(const __grid_constant__ AttentionParamsSm90 plan) {
  WAM_DYNAMIC_SHARED(bytes);
  const AttentionShared<Tile> shared(bytes);
  const AttentionParams& p = plan.attention;
  if (threadIdx.x == 0) {
    barrier_init(shared.q_full, 1);
    barrier_init(shared.q_empty, 8);  // one arrival a computing warp
    for (int i = 0; i < Tile::stages; ++i) {
      barrier_init(&shared.k_full[i], 1);
      barrier_init(&shared.k_empty[i], 8);
      barrier_init(&shared.v_full[i], 1);
      barrier_init(&shared.v_empty[i], 8);
    }
    barrier_init_done();
  }
  if (!WAM_PLANTED("missing_barrier")) __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) attention_produce<Tile>(plan, shared);
    return;
  }
  take_registers<232>();
  AttentionConsumer<Tile> consumer(p, shared);
  const int first = (int(threadIdx.x) / 32 - 4) * 16;
  for (int index = int(blockIdx.x); index < attention_tiles<Tile>(p); index += int(gridDim.x)) {
    const AttentionPlace at = attention_place<Tile>(p, index);
    const TileRange range = key_range<Tile>(p, at);
    SoftmaxState<Tile> state;
    if (range.begin < range.end) consumer.run(state, at, range);
    complete_sums(state);
    if (p.splits == 1)
      store_fragments<Tile>(p, state, at, first);
    else
      store_split<Tile>(p, state, at, first);
  }
  consumer.finish();
}

/// Calls launch(shape, kernel, params) as planned, and the merge where keys are split.
template <typename Launch>
bool launch_attention_sm90(const AttentionParamsSm90& plan, Launch&& launch) {
  if (plan.blocks < 1) return false;
  const auto with = [&]<class Tile>(Tile) {
    launch(LaunchShape{.grid_x = unsigned(plan.blocks), .threads = Tile::threads, .shared_bytes = Tile::shared_bytes},
           attention_kernel_sm90<Tile>, plan);
  };
  if (plan.attention.head_dim == 128)
    with(AttentionTileOfSm90<128>{});
  else
    with(AttentionTileOfSm90<64>{});
  if (plan.attention.splits > 1) launch_attention_merge(plan.attention, launch);
  return true;
}

/// See wamcore/kernels/cuda/attention.h.
inline PlanResult make_attention_plan_sm90(AttentionParamsSm90* plan, const AttentionParams& p, int multiprocessors) {
  if (!attention_possible(p) || multiprocessors < 1) return kImpossiblePlan;
  *plan = {.attention = p};
  const auto map = [&](TensorMap* to, const bf16* base, int64_t rows, int64_t ld, int64_t batch_stride, int box) {
    const int64_t batch_bytes = 2 * (p.batch > 1 ? batch_stride : rows * ld);
    return make_tensor_map(to, {.base = base,
                                .rank = 4,
                                .sizes = {p.head_dim, p.heads, rows, p.batch},
                                .strides = {2 * p.head_dim, 2 * ld, batch_bytes},
                                .box = {64, 1, box, 1}});
  };
  using Tile = AttentionTileOfSm90<128>;
  static_assert(Tile::key_rows == AttentionTileOfSm90<64>::key_rows);
  if (const int refused = map(&plan->q, p.q, p.rows, p.ldq, p.q_batch, Tile::query_rows)) return refused;
  for (int g = 0; g < p.group_count; ++g)
    for (int s = 0; s < p.groups[g].segment_count; ++s) {
      const KeySegment& keys = p.groups[g].segments[s];
      if (keys.buffer_rows < 1 || keys.first_row + keys.rows > keys.buffer_rows) return kImpossiblePlan;
      const auto rows = [&](TensorMap* to, const bf16* base) {
        return map(to, base, keys.buffer_rows, keys.ld, keys.batch_stride, Tile::key_rows);
      };
      if (const int refused = rows(&plan->k[g][s], keys.k)) return refused;
      if (const int refused = rows(&plan->v[g][s], keys.v)) return refused;
    }
  const int tiles = attention_tiles<Tile>(p);
  plan->blocks = tiles < multiprocessors ? tiles : multiprocessors;
  return 0;
}

}  // namespace wam::kernels::cuda
