#pragma once

// Where kernels run: a GPU, or the machine of tests/simt. The checks are written against this alone, so that the code
// which will judge a GPU is itself judged where there is none.
#include <cstddef>
#include <variant>

#include "wamcore/kernels/cuda/attention.h"
#include "wamcore/kernels/cuda/embed.h"
#include "wamcore/kernels/cuda/fp8.h"
#include "wamcore/kernels/cuda/gemm.h"
#include "wamcore/kernels/cuda/gemm_plain.h"
#include "wamcore/kernels/cuda/ln_modulate.h"
#include "wamcore/kernels/cuda/qk_norm_rope_cachewrite.h"
#include "wamcore/kernels/cuda/sampler_step.h"

namespace device_check {

using namespace wam::kernels::cuda;

/// Kernels that exist in two versions say which.
struct AttentionSm80 {
  AttentionParams p;
};
struct AttentionSm90 {
  AttentionParams p;
};
struct GemmSm80 {
  GemmParams p;
  int multiprocessors;  // decides the tile
};
struct GemmSm90 {
  GemmParams p;
  GemmChoiceSm90 choice;
  GemmScratch scratch;
};
struct GemmFp8Sm90 {
  GemmParams p;
  Fp8Operands operands;
  GemmChoiceSm90 choice;
  GemmScratch scratch;
};

struct GemmFp8Sm89 {
  Fp8Product p;
  int multiprocessors;  // decides the tile
};
struct QuantizeRowsSm89 {
  QuantizeRowsParams p;
};

/// One launch, by the addresses of the rig's memory.
using Work =
    std::variant<AttentionSm80, AttentionSm90, GemmSm80, GemmSm90, GemmFp8Sm90, GemmFp8Sm89, GemmPlainParams,
                 LnModulateParams, QkNormRopeCacheWriteParams, QuantizeRowsParams, QuantizeRowsSm89, SamplerStepParams,
                 SinusoidParams, ActivationParams, PatchifyParams, UnpatchifyParams, AddParams>;

class Rig {
 public:
  virtual ~Rig() = default;
  virtual std::byte* allocate(size_t bytes) = 0;  // aligned to 256 bytes
  virtual void release(std::byte* p) noexcept = 0;
  virtual void upload(std::byte* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const std::byte* from, size_t bytes) = 0;  // after all that was started
  /// Starts a kernel; throws std::runtime_error where it refuses or fails.
  virtual void start(const Work& work) = 0;
  virtual bool has_sm90() const = 0;
  virtual bool has_fp8() const = 0;
  virtual int multiprocessors() const = 0;
};

}  // namespace device_check
