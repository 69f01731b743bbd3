#include "backend/backend.h"
#include "bind.h"
#include "wamcore/error.h"
#include "wamcore/version.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  py::module_::import("numpy");  // else the first array is built on a control thread, inside an import
  m.attr("__version__") = WAMCORE_VERSION;
  auto base = py::register_exception<wam::Error>(m, "Error", PyExc_RuntimeError);
  py::register_exception<wam::ConfigError>(m, "ConfigError", base);
  py::register_exception<wam::WeightError>(m, "WeightError", base);
  py::register_exception<wam::ShapeError>(m, "ShapeError", base);
  py::register_exception<wam::InputError>(m, "InputError", base);
  py::register_exception<wam::DeviceError>(m, "DeviceError", base);
  py::register_exception<wam::RobotError>(m, "RobotError", base);
  wam::bindings::bind_data(m);
  wam::bindings::bind_io(m);
  wam::bindings::bind_session(m);
  wam::bindings::bind_hal(m);
  wam::bindings::bind_safety(m);
  wam::bindings::bind_runner(m);
  m.def("cpu_isa", wam::cpu_isa,
        "Instruction set that the CPU kernels use: avx512, avx2 or portable; WAMCORE_CPU_ISA forces one.\n\n"
        "Raises:\n    DeviceError: WAMCORE_CPU_ISA names one that this CPU lacks.");
  auto components = m.def_submodule("components", "Parts of a model by themselves, for comparison and debugging.");
  wam::bindings::bind_dit(components);
  wam::bindings::bind_encoders(components);
  wam::bindings::bind_codecs(components);
  wam::bindings::bind_preprocess(components);
}
