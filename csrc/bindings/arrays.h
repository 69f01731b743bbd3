#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "wamcore/error.h"
#include "wamcore/tensor.h"

namespace wam::bindings {

namespace py = pybind11;

/// A C-contiguous float32 array; other element types and layouts are converted by a copy.
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

inline std::string shape_of(const py::array& a) {
  Shape shape(a.shape(), a.shape() + a.ndim());
  return shape_string(shape);
}

/// The data of an array that must have exactly this shape.
inline const float* expect(const FloatArray& a, const Shape& shape, const std::string& what) {
  if (Shape(a.shape(), a.shape() + a.ndim()) != shape)
    throw ShapeError(what + ": wanted shape " + shape_string(shape) + ", got " + shape_of(a));
  return a.data();
}

inline py::array_t<float> empty(const Shape& shape) {
  return py::array_t<float>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

}  // namespace wam::bindings
