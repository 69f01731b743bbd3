#include <pybind11/stl.h>

#include <algorithm>

#include "arrays.h"
#include "bind.h"
#include "io/weight_store.h"
#include "model/families/dreamzero_config.h"

namespace wam::bindings {
namespace {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

py::array f32(WeightStore& store, const std::string& name) {
  const Shape shape = store.entry(name).shape;
  const Tensor tensor = store.f32(name, shape);  // holds the GIL: the store is for one thread at a time
  py::array_t<float> array = empty(shape);
  std::copy_n(tensor.data<float>(), tensor.numel(), array.mutable_data());
  return array;
}

}  // namespace

void bind_io(py::module_& m) {
  m.def(
      "check_config", [](const std::string& path) { DreamZeroConfig::read(path); }, py::arg("path"),
      "Reads a config.json as loading a model does.\n\n"
      "Raises:\n    ConfigError: a field is unknown, missing or contradictory.");
  py::class_<TensorEntry>(m, "TensorEntry", "One tensor of a weight file.")
      .def_readonly("name", &TensorEntry::name, "As in the file.")
      .def_property_readonly(
          "dtype", [](const TensorEntry& e) { return dtype_name(e.dtype); }, "\"f32\", \"bf16\", ...")
      .def_property_readonly(
          "shape", [](const TensorEntry& e) { return py::tuple(py::cast(e.shape)); }, "Sizes, outermost first.")
      .def_readonly("offset", &TensorEntry::offset, "Of the first byte, from the start of the file.")
      .def_readonly("nbytes", &TensorEntry::bytes, "Size of its data, bytes.")
      .def("__repr__", [](const TensorEntry& e) {
        return "TensorEntry(" + e.name + ": " + dtype_name(e.dtype) + " " + shape_string(e.shape) + ")";
      });

  py::class_<SafetensorsFile>(m, "SafetensorsFile",
                              "A safetensors file whose header has been checked in full.\n\n"
                              "Args:\n    path: the file.\n\nRaises:\n    WeightError: it is malformed in any way.")
      .def(py::init<const std::string&>(), py::arg("path"), ReleaseGil())
      .def_property_readonly("path", &SafetensorsFile::path, "As given.")
      .def_property_readonly("entries", &SafetensorsFile::entries, "Its tensors, sorted by name.")
      .def_property_readonly("metadata", &SafetensorsFile::metadata, "Its free text, {str: str}.");

  py::class_<WeightStore>(m, "WeightStore",
                          "The tensors of a checkpoint by name, whichever files they lie in.\n\n"
                          "Args:\n    path: a .safetensors file, an index, or a folder with model.safetensors or an "
                          "index.\n\nRaises:\n    WeightError: a file is malformed, or index and shards disagree.")
      .def(py::init(&WeightStore::open), py::arg("path"), ReleaseGil())
      .def("__len__", &WeightStore::size)
      .def("__contains__", [](const WeightStore& s, const std::string& name) { return s.contains(name); })
      .def("names", &WeightStore::names, "All names, sorted.")
      .def(
          "entry", [](const WeightStore& s, const std::string& name) { return s.entry(name); }, py::arg("name"),
          "Element type, shape and place of a tensor.\n\n"
          "Raises:\n    WeightError: there is no such tensor; the message names the nearest.")
      .def("f32", &f32, py::arg("name"),
           "A floating-point tensor as a float32 array of its own shape.\n\n"
           "Raises:\n    WeightError: no such tensor, not floating point, or a value too large for float32.")
      .def("unused", &WeightStore::unused, "Names never read with f32(), sorted.")
      .def("check_finite", &WeightStore::check_finite, ReleaseGil(),
           "Reads every floating-point tensor.\n\nRaises:\n    WeightError: naming the first NaN or infinity.");
}

}  // namespace wam::bindings
