// Tensor maps are made by the driver, which is asked for the function: nothing of ours is linked against it.
#include <cuda.h>
#include <cuda_runtime.h>

#include "wamcore/kernels/cuda/tensor_map.h"

namespace wam::kernels::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Asked once a process; nullptr: the driver has no such function.
Encode driver_function() {
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) !=
            cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
      return Encode{nullptr};
    return reinterpret_cast<Encode>(function);
  }();
  return encode;
}

}  // namespace

int make_tensor_map(TensorMap* map, const TensorSource& source) {
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) == alignof(CUtensorMap));
  const Encode encode = driver_function();
  if (!encode) return CUDA_ERROR_NOT_FOUND;
  cuuint64_t sizes[4], strides[3];
  cuuint32_t box[4], steps[4] = {1, 1, 1, 1};
  for (int i = 0; i < source.rank; ++i) {
    sizes[i] = cuuint64_t(source.sizes[i]);
    box[i] = cuuint32_t(source.box[i]);
    if (i > 0) strides[i - 1] = cuuint64_t(source.strides[i - 1]);
  }
  return encode(reinterpret_cast<CUtensorMap*>(map),
                source.element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                cuuint32_t(source.rank), const_cast<void*>(source.base), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

}  // namespace wam::kernels::cuda
