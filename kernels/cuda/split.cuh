#pragma once

#include "device.cuh"

namespace wam::kernels::cuda {

/// The part of [0, tiles) that split `split` of `splits` works on; it may be empty.
struct TileRange {
  int begin, end;
};
__host__ __device__ inline TileRange split_range(int tiles, int split, int splits) {
  return {int(int64_t{tiles} * split / splits), int(int64_t{tiles} * (split + 1) / splits)};
}

}  // namespace wam::kernels::cuda
