#include "amx.h"

#include "amx_panels.h"
#include "variants.h"

namespace wam::kernels {

#if WAMCORE_X86_VARIANTS
namespace {

// The CPU's tiles. The instructions are written out, because the compiler's own forms want the tile's number as text.
struct AmxTiles {
  static void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config) : "memory"); }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"n"(kTile));
  }
  template <int kTile>
  static void load(const int8_t* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"n"(kTile), "r"(from), "r"(stride) : "memory");
  }
  template <int kTile>
  static void store(int8_t* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"n"(kTile), "r"(to), "r"(stride) : "memory");
  }
  template <int kTo, int kX, int kW>
  static void dot_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(kTo), "n"(kX), "n"(kW));
  }
  template <int kTo, int kX, int kW>
  static void dot_halves() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(kTo), "n"(kX), "n"(kW));
  }
};

}  // namespace

RoundedProduct amx_product(bool bytes) {
  return {.group = bytes ? 4 : 2, .most = kAmxRows, .panels = amx_panels<AmxTiles>};
}
#else
RoundedProduct amx_product(bool) { return {}; }
#endif

}  // namespace wam::kernels
