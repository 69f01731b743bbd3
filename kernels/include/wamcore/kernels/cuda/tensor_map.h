#pragma once

#include <cstdint>

namespace wam::kernels::cuda {

/// What a bulk tensor copy has to know about its source; the driver's format, 128 bytes nobody else looks into.
struct alignas(128) TensorMap {
  uint64_t words[16] = {};
};

/// A tensor in device memory and the box that one copy brings, innermost dimension first. The box has 128 bytes there
/// (64 bf16, 128 e4m3), and is stored with the 128-byte swizzle; what lies outside of the tensor arrives as zeros.
struct TensorSource {
  const void* base = nullptr;  // 16-byte aligned
  int rank = 2;                // 2 to 4
  int element_bytes = 2;       // 2: bf16; 1: any byte
  int64_t sizes[4] = {};       // elements
  int64_t strides[3] = {};     // bytes between neighbours in dimensions 1 to 3, multiples of 16
  int32_t box[4] = {64, 1, 1, 1};
};

/// 0, or a CUresult of the driver.
int make_tensor_map(TensorMap* map, const TensorSource& source);

/// What came of a plan, which is maps and how the work is divided: 0, the CUresult with which the driver refused a map,
/// or kImpossiblePlan.
using PlanResult = int;
inline constexpr PlanResult kImpossiblePlan = -1;  // sizes, strides or a division that the kernel does not have

}  // namespace wam::kernels::cuda
