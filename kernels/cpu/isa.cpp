#include "wamcore/kernels/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "variants.h"
#if WAMCORE_X86_VARIANTS
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace wam::kernels {
namespace {

#if WAMCORE_X86_VARIANTS
// Tiles are 8 KiB more of state in each thread, and Linux wants to be asked for them once a process.
bool tiles_permitted() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return permitted;
}
#endif

// What computes floats where `chosen` is for rounded products.
Isa of_floats(Isa chosen) {
  switch (chosen) {
    case Isa::amx:
    case Isa::avx512_vnni:
      return Isa::avx512;
    case Isa::neon_dotprod:
    case Isa::neon_mmla:
      return Isa::neon;
    default:
      return chosen;
  }
}

Isa choose(const char* wanted) {
  const bool any = !wanted || !*wanted;
  Isa best = Isa::portable;
  std::string names;
  for (const Isa each : kAllIsas) {
    if (!isa_available(each)) continue;
    best = each;  // the list is in order of speed
    if (!any && std::string(wanted) == isa_name(each)) return each;
    names += (names.empty() ? "" : ", ") + std::string(isa_name(each));
  }
  if (any) return best;
  throw std::invalid_argument("WAMCORE_CPU_ISA: wanted one that this CPU has (" + names + "), got " + wanted);
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512_vnni:
      return "avx512_vnni";
    case Isa::amx:
      return "amx";
    case Isa::neon:
      return "neon";
    case Isa::neon_dotprod:
      return "neon_dotprod";
    case Isa::neon_mmla:
      return "neon_mmla";
    default:
      return "portable";
  }
}

bool isa_available(Isa isa) {
#if WAMCORE_X86_VARIANTS
  // What the levels x86-64-v3 and v4 add that a CPU could lack while it has the rest.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (isa == Isa::avx2) return v3;
  if (isa == Isa::avx512_vnni) return isa_available(Isa::avx512) && __builtin_cpu_supports("avx512vnni");
  if (isa == Isa::amx)
    return isa_available(Isa::avx512_vnni) && __builtin_cpu_supports("amx-tile") &&
           __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") && tiles_permitted();
  if (isa == Isa::avx512)
    return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#elif defined(__aarch64__)
  if (isa == Isa::neon) return true;  // no aarch64 lacks it
  if (isa == Isa::neon_dotprod) return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
  if (isa == Isa::neon_mmla)
    return isa_available(Isa::neon_dotprod) && (~getauxval(AT_HWCAP2) & (HWCAP2_I8MM | HWCAP2_BF16)) == 0;
#endif
  return isa == Isa::portable;
}

Isa int8_isa() {
  static const Isa chosen = choose(std::getenv("WAMCORE_CPU_ISA"));
  return chosen;
}

Isa bf16_isa() {
  static const Isa chosen = int8_isa() == Isa::amx || int8_isa() == Isa::neon_mmla ? int8_isa() : isa();
  return chosen;
}

Isa isa() {
  static const Isa chosen = of_floats(int8_isa());
  return chosen;
}

}  // namespace wam::kernels
