#include "io/convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace wam {
namespace {

template <class T>
T element(const void* source, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const char*>(source) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <class T>
int64_t find_non_finite(const void* source, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(element<T>(source, i))) return i;
    } else {
      if (!std::isfinite(to_float(element<T>(source, i)))) return i;
    }
  }
  return -1;
}

}  // namespace

float to_float(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

float to_float(Float16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31, fraction = x.bits & 1023;
  // exponent 0: a multiple of 2^-24, exact in float
  if (exponent == 0)
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(fraction) * 0x1p-24f));
  const uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

bool to_f32(const void* source, DType dtype, int64_t n, float* out) {
  bool fits = true;
  if (dtype == DType::f32) {
    std::memcpy(out, source, static_cast<size_t>(n) * sizeof(float));
  } else if (dtype == DType::f16) {
    for (int64_t i = 0; i < n; ++i) out[i] = to_float(element<Float16>(source, i));
  } else if (dtype == DType::bf16) {
    for (int64_t i = 0; i < n; ++i) out[i] = to_float(element<BFloat16>(source, i));
  } else {
    check_dtype(dtype, DType::f64);
    for (int64_t i = 0; i < n; ++i) {
      const double wide = element<double>(source, i);
      out[i] = static_cast<float>(wide);
      fits &= std::isfinite(out[i]) || !std::isfinite(wide);
    }
  }
  return fits;
}

int64_t first_non_finite(const void* source, DType dtype, int64_t n) {
  switch (dtype) {
    case DType::f64:
      return find_non_finite<double>(source, n);
    case DType::f32:
      return find_non_finite<float>(source, n);
    case DType::f16:
      return find_non_finite<Float16>(source, n);
    case DType::bf16:
      return find_non_finite<BFloat16>(source, n);
    default:
      return -1;
  }
}

}  // namespace wam
