#pragma once

// Tensor maps as the simulated copy engine reads them.
#include <cstring>

#include "simt/hopper.h"
#include "wamcore/kernels/cuda/tensor_map.h"

namespace wam::kernels::cuda {

/// What the simulated driver answers to every request for a map; 0: it makes them.
inline int tensor_map_refusal = 0;

inline int make_tensor_map(TensorMap* map, const TensorSource& source) {
  if (tensor_map_refusal) return tensor_map_refusal;
  simt::TensorMapFields fields{
      .base = source.base, .element_bytes = uint32_t(source.element_bytes), .rank = uint32_t(source.rank)};
  for (int i = 0; i < source.rank; ++i) {
    fields.sizes[i] = uint64_t(source.sizes[i]);
    fields.box[i] = uint32_t(source.box[i]);
    if (i > 0) fields.strides[i - 1] = uint64_t(source.strides[i - 1]);
    if (i > 0 && source.strides[i - 1] % 16) return 1;
  }
  static_assert(sizeof fields <= sizeof map->words);
  std::memcpy(map->words, &fields, sizeof fields);
  return 0;
}

}  // namespace wam::kernels::cuda
