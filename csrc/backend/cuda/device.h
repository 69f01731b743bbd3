#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "wamcore/kernels/cuda/attention.h"
#include "wamcore/kernels/cuda/embed.h"
#include "wamcore/kernels/cuda/fp8.h"
#include "wamcore/kernels/cuda/gemm.h"
#include "wamcore/kernels/cuda/gemm_plain.h"
#include "wamcore/kernels/cuda/ln_modulate.h"
#include "wamcore/kernels/cuda/qk_norm_rope_cachewrite.h"
#include "wamcore/kernels/cuda/sampler_step.h"

namespace wam::cuda {

namespace kc = kernels::cuda;

/// One kernel with all it needs, by the addresses of the device.
using Call = std::variant<kc::LnModulateParams, kc::QkNormRopeCacheWriteParams, kc::GemmParams, kc::GemmPlainParams,
                          kc::AttentionParams, kc::SinusoidParams, kc::ActivationParams, kc::PatchifyParams,
                          kc::UnpatchifyParams, kc::SamplerStepParams, kc::QuantizeRowsParams, kc::Fp8Product>;

/// Name of the kernel that a call starts, for messages and counts.
std::string_view kernel_name(const Call& call);

/// A list of calls that can be repeated at the cost of one.
class Recording {
 public:
  virtual ~Recording() = default;
};

/// All that programs need of a GPU. Work is done in the order of the calls; the simulated device of the tests has the
/// same face. Throws DeviceError that names the kernel.
class Device {
 public:
  virtual ~Device() = default;
  virtual void* allocate(size_t bytes) = 0;  // aligned to 256 bytes
  virtual void release(void* p) noexcept = 0;
  virtual size_t free_bytes() const = 0;                                // that can still be allocated
  virtual void upload(void* to, const void* from, size_t bytes) = 0;    // `from` may change once this returns
  virtual void download(void* to, const void* from, size_t bytes) = 0;  // waits for all work before it
  virtual void launch(const Call& call) = 0;
  /// Whether it has the kernels of e4m3, and its compute capability, 10 * major + minor.
  virtual bool fp8() const = 0;
  virtual int capability() const = 0;
  /// Parts into which the keys of an attention of this shape are best divided when it sees `keys` of them.
  virtual int attention_splits(const kc::AttentionParams& p, int64_t keys) const = 0;
  virtual std::unique_ptr<Recording> record(std::span<const Call> calls) = 0;
  virtual void replay(const Recording& recording) = 0;

  /// How often each kernel was asked for, by its name.
  using Counts = std::map<std::string, uint64_t, std::less<>>;
  void count(const Counts& more) {
    const std::lock_guard lock(counts_mutex_);
    for (const auto& [kernel, times] : more) counts_[kernel] += times;
  }
  Counts counts() const {
    const std::lock_guard lock(counts_mutex_);
    return counts_;
  }

  /// Kernels that were asked for in a form that the fastest version on this device could not take, and why: the last
  /// reason of each. They ran, in their mma.sync version.
  using Detours = std::map<std::string, std::string, std::less<>>;
  void detour(std::string_view kernel, std::string why) {
    const std::lock_guard lock(counts_mutex_);
    detours_.insert_or_assign(std::string(kernel), std::move(why));
  }
  Detours detours() const {
    const std::lock_guard lock(counts_mutex_);
    return detours_;
  }

 private:
  mutable std::mutex counts_mutex_;
  Counts counts_;
  Detours detours_;
};

/// "12 MiB", rounded up.
std::string mib(size_t bytes);

/// Device memory that frees itself.
class Block {
 public:
  Block() = default;
  Block(Device& device, size_t bytes) : device_(&device), at_(device.allocate(bytes)), bytes_(bytes) {}
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Block() {
    if (at_) device_->release(at_);
  }
  template <typename T = std::byte>
  T* as(size_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(at_) + offset_bytes);
  }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Block& other) noexcept {
    std::swap(device_, other.device_), std::swap(at_, other.at_), std::swap(bytes_, other.bytes_);
  }
  Device* device_ = nullptr;
  void* at_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace wam::cuda
