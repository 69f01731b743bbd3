#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// Element types that arrays and weight files may have. `boolean` is one byte, zero or not.
enum class DType : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

/// Storage of the two half-precision formats; arithmetic happens in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

/// Bytes of one element.
WAMCORE_API size_t dtype_size(DType dtype);
/// "f32", "bf16", ... ; "bool" for boolean.
WAMCORE_API const char* dtype_name(DType dtype);

/// Sizes of the axes, outermost first. The empty shape is a scalar.
using Shape = std::vector<int64_t>;
/// "[2, 3]".
WAMCORE_API std::string shape_string(const Shape& shape);
/// Elements of a contiguous array. The only size formulas of the library: negative sizes and anything that does not fit
/// (zeros do not hide an overflow) throw ShapeError.
WAMCORE_API int64_t numel(const Shape& shape);
/// Bytes of a contiguous array; see numel().
WAMCORE_API size_t nbytes(const Shape& shape, DType dtype);

/// The element type that a C++ type stores; bytes of `boolean` are read as uint8_t.
template <class T>
inline constexpr DType dtype_of = T::is_not_an_element_type;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<Float16> = DType::f16;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<int16_t> = DType::i16;
template <>
inline constexpr DType dtype_of<int8_t> = DType::i8;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;

/// Throws ShapeError unless `stored` elements may be read as `wanted` ones.
WAMCORE_API void check_dtype(DType stored, DType wanted);

/// A contiguous array that someone else owns. Data of weight files may be unaligned; such views are read by copying.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  int64_t numel() const { return wam::numel(shape); }
  size_t nbytes() const { return wam::nbytes(shape, dtype); }
  /// Throws ShapeError when T is not the element type, or when the data is not aligned for T.
  template <class T>
  const T* as() const {
    check_dtype(dtype, dtype_of<T>);
    check_aligned(alignof(T));
    return static_cast<const T*>(data);
  }

 private:
  WAMCORE_API void check_aligned(size_t alignment) const;
};

/// A contiguous array on the host that owns its memory, aligned to 64 bytes. Moves, never copies by itself.
class WAMCORE_API Tensor {
 public:
  Tensor() = default;
  /// Zero-initialised.
  explicit Tensor(Shape shape, DType dtype = DType::f32);
  /// Memory as it comes; the caller writes every element.
  static Tensor uninitialized(Shape shape, DType dtype = DType::f32);

  /// Throws ShapeError when T is not the element type.
  template <class T>
  T* data() {
    check_dtype(dtype_, dtype_of<T>);
    return static_cast<T*>(static_cast<void*>(memory_.get()));
  }
  template <class T>
  const T* data() const {
    return const_cast<Tensor*>(this)->data<T>();
  }
  void* raw() { return memory_.get(); }
  const void* raw() const { return memory_.get(); }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  /// Size of axis i; negative i counts from the end. Throws ShapeError when there is no such axis.
  int64_t dim(int i) const;
  int64_t numel() const { return wam::numel(shape_); }
  size_t nbytes() const { return wam::nbytes(shape_, dtype_); }
  TensorView view() const { return {memory_.get(), dtype_, shape_}; }
  Tensor clone() const;
  /// False for a default-constructed or moved-from tensor.
  explicit operator bool() const { return memory_ != nullptr; }

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept;
  };
  Shape shape_;
  DType dtype_ = DType::f32;
  std::unique_ptr<std::byte[], Free> memory_;
};

}  // namespace wam
