#pragma once

#include <cstdint>

namespace wam::kernels {

/// Instruction sets that the kernels are compiled for; `portable` is what the compiler's default target allows.
enum class Isa : uint8_t { portable, avx2, avx512, neon };
inline constexpr Isa kAllIsas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::neon};

/// The one in use: the best that this CPU has, or the one that the environment variable WAMCORE_CPU_ISA names.
/// Throws std::invalid_argument when that is not a name, or not of this CPU.
Isa isa();
const char* isa_name(Isa isa);
/// Whether this build has kernels for it and this CPU can run them.
bool isa_available(Isa isa);

}  // namespace wam::kernels
