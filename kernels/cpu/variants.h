#pragma once

#include <cstdint>

#include "wamcore/kernels/isa.h"

// WAMCORE_VARIANTS(name, (parameters), (arguments)) makes of a template `name_loop<Isa>` a function `name` that is
// compiled for every instruction set and runs the variant that isa() says. A plain build of the library then runs
// everywhere and still vectorises for the machine at hand. The template must be [[gnu::always_inline]], or its loops
// would be compiled for the default target.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WAMCORE_X86_VARIANTS 1
#define WAMCORE_VARIANTS(name, parameters, arguments)                                                             \
  __attribute__((target("arch=x86-64-v4"))) void name##_avx512 parameters { name##_loop<Isa::avx512> arguments; } \
  __attribute__((target("arch=x86-64-v3"))) void name##_avx2 parameters { name##_loop<Isa::avx2> arguments; }     \
  void name##_portable parameters { name##_loop<Isa::portable> arguments; }                                       \
  void name parameters {                                                                                          \
    switch (isa()) {                                                                                              \
      case Isa::avx512:                                                                                           \
        return name##_avx512 arguments;                                                                           \
      case Isa::avx2:                                                                                             \
        return name##_avx2 arguments;                                                                             \
      default:                                                                                                    \
        return name##_portable arguments;                                                                         \
    }                                                                                                             \
  }
#elif defined(__aarch64__)
// NEON belongs to the default target; its variant differs by tiles that fill twice as many registers.
#define WAMCORE_X86_VARIANTS 0
#define WAMCORE_VARIANTS(name, parameters, arguments)                       \
  void name##_neon parameters { name##_loop<Isa::neon> arguments; }         \
  void name##_portable parameters { name##_loop<Isa::portable> arguments; } \
  void name parameters {                                                    \
    if (isa() == Isa::neon) return name##_neon arguments;                   \
    return name##_portable arguments;                                       \
  }
#else
#define WAMCORE_X86_VARIANTS 0
#define WAMCORE_VARIANTS(name, parameters, arguments) \
  void name parameters { name##_loop<Isa::portable> arguments; }
#endif

namespace wam::kernels {

// Whether an instruction set has 32 vector registers; the others have 16.
template <Isa I>
inline constexpr bool kManyRegisters = I == Isa::avx512 || I == Isa::neon;

// The vector register of an instruction set. (Wider vectors than that compile, but go through memory.)
template <Isa>
struct Simd {
  static constexpr int64_t lanes = 4;
  typedef float Vec __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  typedef uint16_t Halves __attribute__((vector_size(8)));
};
template <>
struct Simd<Isa::avx2> {
  static constexpr int64_t lanes = 8;
  typedef float Vec __attribute__((vector_size(32)));
  typedef uint32_t Words __attribute__((vector_size(32)));
  typedef uint16_t Halves __attribute__((vector_size(16)));
};
template <>
struct Simd<Isa::avx512> {
  static constexpr int64_t lanes = 16;
  typedef float Vec __attribute__((vector_size(64)));
  typedef uint32_t Words __attribute__((vector_size(64)));
  typedef uint16_t Halves __attribute__((vector_size(32)));
};

// By reference: a vector as a result would have another calling convention on each instruction set.
template <typename Vec>
[[gnu::always_inline]] inline void load(Vec& v, const float* x) {
  __builtin_memcpy(&v, x, sizeof v);
}
template <typename Vec>
[[gnu::always_inline]] inline void store(float* x, const Vec& v) {
  __builtin_memcpy(x, &v, sizeof v);
}

}  // namespace wam::kernels
