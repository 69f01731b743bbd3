#pragma once

#include <cstdlib>

#include "check.h"
#include "wamcore/kernels/isa.h"

// main() of a test that ctest also runs with WAMCORE_CPU_ISA set: status 77, "skipped", where the CPU lacks that one.
inline int run_on_isa() {
  using wam::kernels::Isa;
  const char* wanted = std::getenv("WAMCORE_CPU_ISA");
  for (const Isa isa : wam::kernels::kAllIsas)
    if (wanted && std::string(wanted) == wam::kernels::isa_name(isa) && !wam::kernels::isa_available(isa)) {
      std::printf("skipped: this CPU has no %s\n", wanted);
      return 77;
    }
  return check::run();
}
#define CHECK_MAIN_ON_ISA() \
  int main() { return run_on_isa(); }
