#pragma once

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// Rows of the K/V memory that a pass writes, in the order of its stored tokens. Lies in device memory, so that a
/// captured graph serves every ring position.
struct CacheSlots {
  int32_t begin[2] = {0, 0};
  int32_t rows[2] = {0, 0};
};

/// One of queries, keys and values.
struct HeadRows {
  const bf16* x = nullptr;      // [tokens, heads, head_dim], row stride ldx: what the projection gave
  bf16* y = nullptr;            // [tokens, heads, pitch]: where tokens go that are not stored
  bf16* cache = nullptr;        // [capacity, heads, pitch]; nullptr: nothing is stored
  const float* norm = nullptr;  // [heads * head_dim], per head [head_dim]; nullptr: no norm
  int64_t ldx = 0;
  bool rope = false;
  const float* square = nullptr;  // [tokens, squares], row stride ld_square: the row's sum of squares in parts, as a
  int64_t ld_square = 0;          // product left them; nullptr: summed here
};

/// RMSNorm over the full width (or per head), rotation of pairs (2i, 2i + 1), and the write to where attention reads:
/// rows of this pass, or slots of the memory. y may equal x where pitch is head_dim. Rows and norms start at an even
/// element.
struct QkNormRopeCacheWriteParams {
  HeadRows part[3];
  int32_t parts = 0;
  int32_t squares = 0;  // numbers that a row's sum of squares is divided into, where a part has them
  int32_t tokens = 0, heads = 0, head_dim = 0;
  int32_t pitch = 0;  // elements from one head to the next in y and cache; what lies above head_dim becomes zero
  int32_t store_begin = 0, store_rows = 0;  // tokens whose part with a cache goes there
  const CacheSlots* slots = nullptr;        // in device memory; nullptr: nothing is stored
  float eps = 1e-6f;
  bool per_head = false;
  const float* cos = nullptr;  // [tokens, head_dim / 2]; nullptr: no part is rotated
  const float* sin = nullptr;  // [tokens, head_dim / 2]
};

/// Most columns (heads * head_dim) a row may have: a block keeps its row in registers.
inline constexpr int32_t kQkMostColumns = 8192;

LaunchResult qk_norm_rope_cachewrite(const QkNormRopeCacheWriteParams& p, Stream stream);

}  // namespace wam::kernels::cuda
