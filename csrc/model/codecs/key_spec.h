#pragma once

#include <string>

#include "wamcore/tensor.h"

namespace wam {

/// A tensor that a checkpoint of some component holds, whether or not the runtime reads it.
struct KeySpec {
  std::string name;
  Shape shape;
  bool used = true;
};

}  // namespace wam
