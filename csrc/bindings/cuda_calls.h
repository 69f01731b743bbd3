#pragma once

#include <nanobind/nanobind.h>

namespace wam::bindings {

void bind_cuda_calls(nanobind::module_& m);

}  // namespace wam::bindings
