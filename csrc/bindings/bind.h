#pragma once

#include <pybind11/pybind11.h>

// Each bind_*.cpp adds one group of names to the module; core.cpp calls them in order.
namespace wam::bindings {

void bind_data(pybind11::module_& m);     // Observation, ActionChunk, Policy
void bind_session(pybind11::module_& m);  // Model, Embodiment, Session; after bind_data
void bind_codecs(pybind11::module_& components);
void bind_dit(pybind11::module_& components);
void bind_encoders(pybind11::module_& components);
void bind_hal(pybind11::module_& m);      // Hal and its values, MockHal, clocks; after bind_data
void bind_drivers(pybind11::module_& m);  // FaultInjector, ReplayHal; after bind_hal
void bind_safety(pybind11::module_& m);   // JointLimits, SafetyFilter, Workspace
void bind_runner(pybind11::module_& m);   // Runner, VirtualRunner; after all others
void bind_io(pybind11::module_& m);       // WeightStore, SafetensorsFile
void bind_preprocess(pybind11::module_& components);

}  // namespace wam::bindings
