#include "backend/backend.h"
#include "bind.h"
#include "wamcore/error.h"
#include "wamcore/version.h"

namespace py = pybind11;

namespace {

template <typename E>
py::handle add_error(py::module_& m, const char* name, py::handle base, const char* doc) {
  auto& type = py::register_exception<E>(m, name, base);
  type.attr("__doc__") = doc;
  return type;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  py::module_::import("numpy");  // else the first array is built on a control thread, inside an import
  m.attr("__version__") = WAMCORE_VERSION;
  const py::handle base = add_error<wam::Error>(m, "Error", PyExc_RuntimeError,
                                                "Base of all errors raised here: what was wanted, what came.");
  add_error<wam::ConfigError>(m, "ConfigError", base, "A configuration file or option is unknown, missing or wrong.");
  add_error<wam::WeightError>(m, "WeightError", base,
                              "A weight file is malformed, or its tensors do not fit the model.");
  add_error<wam::ShapeError>(m, "ShapeError", base, "An array has the wrong shape or element type.");
  add_error<wam::InputError>(m, "InputError", base, "An observation, prompt or option given at run time is unusable.");
  add_error<wam::DeviceError>(m, "DeviceError", base, "A compute device or backend is missing or failed.");
  add_error<wam::RobotError>(m, "RobotError", base, "A robot driver or a runner thread failed.");
  wam::bindings::bind_data(m);
  wam::bindings::bind_io(m);
  wam::bindings::bind_session(m);
  wam::bindings::bind_hal(m);
  wam::bindings::bind_drivers(m);
  wam::bindings::bind_safety(m);
  wam::bindings::bind_runner(m);
  m.def(
      "cpu_isa", [](const std::string& dtype) { return wam::cpu_isa(wam::precision_of(dtype)); },
      py::arg("dtype") = "float32",
      "Instruction set that the CPU kernels use; WAMCORE_CPU_ISA forces one.\n\n"
      "Args:\n    dtype: of the model's layers: float32 (avx512, avx2, neon or portable), or bfloat16 and int8, for\n"
      "        which there are more (avx512_vnni, amx, neon_dotprod, neon_mmla).\n"
      "Raises:\n    DeviceError: WAMCORE_CPU_ISA names one that this CPU lacks, or no CPU kernels compute in dtype.\n"
      "    ConfigError: There is no such dtype.");
  auto components = m.def_submodule("components", "Parts of a model by themselves, for comparison and debugging.");
  wam::bindings::bind_dit(components);
  wam::bindings::bind_encoders(components);
  wam::bindings::bind_codecs(components);
  wam::bindings::bind_preprocess(components);
}
