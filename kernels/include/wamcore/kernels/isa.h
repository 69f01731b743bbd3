#pragma once

#include <cstdint>

namespace wam::kernels {

/// Instruction sets that the kernels are compiled for; `portable` is what the compiler's default target allows. Some
/// are another one for floats, with instructions for rounded products: avx512_vnni is avx512 with products of bytes,
/// amx that with tiles of bytes and of bfloat16; neon_dotprod is neon with products of bytes, neon_mmla that with
/// products of small matrices of bytes (i8mm) and of bfloat16.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_vnni, amx, neon, neon_dotprod, neon_mmla };
inline constexpr Isa kAllIsas[] = {Isa::portable, Isa::avx2, Isa::avx512,       Isa::avx512_vnni,
                                   Isa::amx,      Isa::neon, Isa::neon_dotprod, Isa::neon_mmla};

/// The one in use for floats: the best that this CPU has, or the one that the environment variable WAMCORE_CPU_ISA
/// names. Throws std::invalid_argument when that is not a name, or not of this CPU.
Isa isa();
/// The ones in use for products of bytes and of bfloat16; they throw as isa() does.
Isa int8_isa();
Isa bf16_isa();
const char* isa_name(Isa isa);
/// Whether this build has kernels for it and this CPU can run them.
bool isa_available(Isa isa);

}  // namespace wam::kernels
