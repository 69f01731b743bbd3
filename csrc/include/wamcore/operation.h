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

/// Where time went while a session's operations were timed: one operation in one step of the model's programs.
struct OperationTime {
  std::string step;       // "q, k, v", "feed-forward", ...; "encoders" for what no program of the transformer asked for
  std::string operation;  // as in OperationReport; "wait": threads of a step for each other, and what is between
  std::string precision;  // as there
  uint64_t calls = 0;
  uint64_t ns = 0;                 // wall time; of threads that work at once a share each
  double flop = 0.0, bytes = 0.0;  // arithmetic of the definition, and read and written at least; 0: not counted
};

}  // namespace wam
