#pragma once

#include <cstdint>

namespace wam::kernels {

/// Instruction sets that the kernels are compiled for; `portable` is what the compiler's default target allows.
/// avx512_vnni and neon_dotprod are avx512 and neon with instructions for products of bytes.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_vnni, neon, neon_dotprod };
inline constexpr Isa kAllIsas[] = {Isa::portable,    Isa::avx2, Isa::avx512,
                                   Isa::avx512_vnni, Isa::neon, Isa::neon_dotprod};

/// The one in use for floats, never avx512_vnni or neon_dotprod: the best that this CPU has, or the one that the
/// environment variable WAMCORE_CPU_ISA names. Throws std::invalid_argument when that is not a name, or not of this
/// CPU.
Isa isa();
/// The one in use for products of bytes; throws as isa() does.
Isa int8_isa();
const char* isa_name(Isa isa);
/// Whether this build has kernels for it and this CPU can run them.
bool isa_available(Isa isa);

}  // namespace wam::kernels
