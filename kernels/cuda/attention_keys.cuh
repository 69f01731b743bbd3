#pragma once

// Walks the key tiles of a query group: segment by segment, so that only the last tile of each segment is ragged.
#include "split.cuh"
#include "wamcore/kernels/cuda/attention.h"

namespace wam::kernels::cuda {

/// What every kernel asks of its parameters.
inline bool attention_possible(const AttentionParams& p) {
  const auto ok = [](const void* pointer, int64_t stride) {
    return pointer && reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
  };
  if (p.head_dim != 64 && p.head_dim != 128) return false;
  if (p.rows < 1 || p.heads < 1 || p.batch < 1 || p.splits < 1) return false;
  if (!ok(p.q, p.ldq) || !ok(p.out, p.ldo) || p.q_batch % 8 || p.out_batch % 8) return false;
  if (p.splits > 1 && (!ok(p.split_out, 0) || !p.split_lse)) return false;
  if (p.group_count < 1 || p.group_count > kMaxQueryGroups) return false;
  int rows = 0;
  for (int g = 0; g < p.group_count; ++g) {
    const QueryGroup& group = p.groups[g];
    if (group.first_row != rows || group.rows < 0) return false;
    rows += group.rows;
    if (group.segment_count < 0 || group.segment_count > kMaxKeySegments) return false;
    for (int s = 0; s < group.segment_count; ++s) {
      const KeySegment& keys = group.segments[s];
      if (!ok(keys.k, keys.ld) || !ok(keys.v, keys.batch_stride) || keys.rows < 0 || keys.first_row < 0) return false;
    }
  }
  return rows == p.rows;
}

/// The rows of segment `s` of group `g` that are seen now.
__host__ __device__ inline LiveRows live_rows(const AttentionParams& p, int g, int s) {
  if (p.live) return p.live[g * kMaxKeySegments + s];
  return {p.groups[g].segments[s].first_row, p.groups[g].segments[s].rows};
}

/// Key tiles of `tile_rows` rows that group `g` sees.
template <int tile_rows>
__host__ __device__ inline int key_tiles(const AttentionParams& p, int g) {
  int tiles = 0;
  for (int s = 0; s < p.groups[g].segment_count; ++s) tiles += (live_rows(p, g, s).rows + tile_rows - 1) / tile_rows;
  return tiles;
}

/// Query tiles of `tile_rows` rows of all groups; a tile never spans two groups.
template <int tile_rows>
__host__ __device__ inline int query_tiles(const AttentionParams& p) {
  int tiles = 0;
  for (int g = 0; g < p.group_count; ++g) tiles += (p.groups[g].rows + tile_rows - 1) / tile_rows;
  return tiles;
}

/// Group and rows of query tile `tile`.
struct QueryTile {
  int group, first_row, rows;
};
template <int tile_rows>
__host__ __device__ inline QueryTile query_tile(const AttentionParams& p, int tile) {
  int g = 0;
  for (; g + 1 < p.group_count; ++g) {
    const int tiles = (p.groups[g].rows + tile_rows - 1) / tile_rows;
    if (tile < tiles) break;
    tile -= tiles;
  }
  const int first = tile * tile_rows, left = p.groups[g].rows - first;
  return {g, p.groups[g].first_row + first, left < tile_rows ? left : tile_rows};
}

/// One tile of keys: where it starts and how many of its rows exist.
template <int tile_rows>
class KeyTile {
 public:
  /// Tile `index` of group `g`; there must be one.
  __host__ __device__ KeyTile(const AttentionParams& p, int g, int index) : group_(g) {
    for (segment_ = 0;; ++segment_) {
      const LiveRows live = live_rows(p, g, segment_);
      const int tiles = (live.rows + tile_rows - 1) / tile_rows;
      if (index < tiles) {
        row_ = live.first_row + index * tile_rows;
        left_ = live.rows - index * tile_rows;
        return;
      }
      index -= tiles;
    }
  }
  /// The following tile; there must be one.
  __host__ __device__ void advance(const AttentionParams& p) {
    if (left_ > tile_rows) {
      row_ += tile_rows;
      left_ -= tile_rows;
      return;
    }
    do {
      const LiveRows live = live_rows(p, group_, ++segment_);
      row_ = live.first_row;
      left_ = live.rows;
    } while (left_ == 0);
  }
  __host__ __device__ const KeySegment& segment(const AttentionParams& p) const {
    return p.groups[group_].segments[segment_];
  }
  /// Offset of this tile's first row in k and v, for a batch entry and a head.
  __host__ __device__ int64_t offset(const AttentionParams& p, int b, int column) const {
    const KeySegment& s = segment(p);
    return b * s.batch_stride + row_ * s.ld + column;
  }
  __host__ __device__ int segment_index() const { return segment_; }
  __host__ __device__ int row() const { return row_; }
  /// Rows from the tile's first to the segment's end: more than tile_rows in all but the last tile.
  __host__ __device__ int rows_left() const { return left_; }

 private:
  int group_, segment_ = 0, row_ = 0, left_ = 0;
};

}  // namespace wam::kernels::cuda
