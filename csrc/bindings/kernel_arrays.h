#pragma once

// Arrays of any library as kernels want them: a pointer, sizes and a row stride, all checked.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <string>

#include "wamcore/error.h"
#include "wamcore/tensor.h"

namespace wam::bindings {

namespace nb = nanobind;

// In kernels' terms every axis but the first lies contiguous; the first may have any stride.
template <int N>
using In = nb::ndarray<const float, nb::ndim<N>, nb::device::cpu>;
template <int N>
using Out = nb::ndarray<float, nb::ndim<N>, nb::device::cpu>;
template <int N>
using OptionalIn = std::optional<In<N>>;
using Rows = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

/// Shapes of one call are checked against each other under the call's name.
class Call {
 public:
  explicit Call(const char* function) : function_(function) {}

  [[noreturn]] void fail(const std::string& what) const { throw ShapeError(function_ + (": " + what)); }

  /// The array has exactly this shape.
  template <class Array>
  void shape(const char* name, const Array& a, const Shape& wanted) const {
    Shape got;
    for (size_t i = 0; i < a.ndim(); ++i) got.push_back(int64_t(a.shape(i)));
    if (got != wanted) fail(std::string(name) + " must be " + shape_string(wanted) + ", got " + shape_string(got));
  }

  /// Floats from one row (first axis) to the next. Rows must be contiguous inside; written rows may not overlap.
  /// Libraries give arrays without elements, and axes of length 1, strides that mean nothing.
  template <class Array>
  int64_t stride(const char* name, const Array& a, bool written = false) const {
    int64_t inner = 1;
    for (size_t i = a.ndim() - 1; i > 0; --i) {
      if (a.size() > 0 && a.shape(i) > 1 && a.stride(i) != inner)
        fail(std::string(name) + " must be contiguous inside each row");
      inner *= int64_t(a.shape(i));
    }
    if (a.size() == 0 || a.shape(0) <= 1) return inner;
    if (written && a.stride(0) < inner) fail(std::string(name) + " has rows that overlap");
    return a.stride(0);
  }

  /// Every axis lies contiguous, the first one too.
  template <class Array>
  void contiguous(const char* name, const Array& a) const {
    int64_t inner = 1;
    for (size_t i = 1; i < a.ndim(); ++i) inner *= int64_t(a.shape(i));
    if (stride(name, a) != inner) fail(std::string(name) + " must be contiguous");
  }

  /// A vector given or not: its data, or nullptr.
  const float* vector(const char* name, const OptionalIn<1>& a, int64_t size) const {
    if (!a) return nullptr;
    shape(name, *a, {size});
    contiguous(name, *a);
    return a->data();
  }

  /// Row numbers, given or not, that a kernel looks up without asking again.
  const int32_t* indices(const char* name, const std::optional<Rows>& rows, int64_t count, int64_t limit) const {
    if (!rows) return nullptr;
    shape(name, *rows, {count});
    for (int64_t i = 0; i < count; ++i)
      if (const int32_t row = rows->data()[i]; row < 0 || row >= limit)
        fail(std::string(name) + "[" + std::to_string(i) + "] must be 0 to " + std::to_string(limit - 1) + ", got " +
             std::to_string(row));
    return rows->data();
  }

 private:
  const char* function_;
};

}  // namespace wam::bindings
