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

/// A C-contiguous float64 array; other number types and layouts are converted by a copy.
using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

/// The name of an object's type, or of its elements' if it is an array.
inline std::string type_of(const py::handle& value) {
  return py::isinstance<py::array>(value) ? py::str(py::cast<py::object>(value.attr("dtype"))).cast<std::string>()
                                          : py::type::handle_of(value).attr("__name__").cast<std::string>();
}

/// Copies a one-dimensional array; `what` opens the message of the ShapeError that anything else raises.
inline std::vector<double> to_vector(const Doubles& a, const std::string& what) {
  if (a.ndim() != 1) throw ShapeError(what + ": wanted one dimension, got shape " + shape_of(a));
  return {a.data(), a.data() + a.size()};
}

/// A numpy array with a copy of `values`; one-dimensional unless a shape is given.
template <typename T>
py::array_t<T> to_array(const std::vector<T>& values, std::vector<py::ssize_t> shape = {}) {
  if (shape.empty()) shape = {static_cast<py::ssize_t>(values.size())};
  return py::array_t<T>(std::move(shape), values.data());
}

/// A read-only numpy view of memory that `owner` keeps alive.
template <typename T>
py::array array_view(const T* data, std::vector<py::ssize_t> shape, const py::handle& owner) {
  py::array_t<T> a(std::move(shape), data, owner);
  a.attr("setflags")(py::arg("write") = false);
  return a;
}

}  // namespace wam::bindings
