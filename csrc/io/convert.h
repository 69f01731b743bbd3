#pragma once

#include <cstdint>

#include "wamcore/tensor.h"

namespace wam {

float to_float(Float16 x);
float to_float(BFloat16 x);

/// Converts n floating-point elements, which may be unaligned, to float. False when a finite f64 does not fit.
/// Throws ShapeError when the elements are not floating point.
bool to_f32(const void* source, DType dtype, int64_t n, float* out);

/// Index of the first NaN or infinity, or -1. Elements may be unaligned; integers are always finite.
int64_t first_non_finite(const void* source, DType dtype, int64_t n);

}  // namespace wam
