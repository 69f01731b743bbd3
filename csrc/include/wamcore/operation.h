#pragma once

#include <cstdint>
#include <string>

namespace wam {

/// Which kernel computes an operation on this machine, and how often it has.
struct OperationReport {
  std::string operation;  // "gemm", "attention", ...
  std::string kernel;     // what computes it: on a CPU the instruction set that its build is for
  std::string precision;  // of the arithmetic, and of weights that are stored otherwise
  uint64_t runs = 0;
};

}  // namespace wam
