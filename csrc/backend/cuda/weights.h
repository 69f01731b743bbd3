#pragma once

#include <map>
#include <mutex>

#include "backend/cuda/device.h"
#include "backend/weights.h"

namespace wam::cuda {

using kc::bf16;

/// A matrix on the device as kernels read it.
struct DeviceMatrix {
  const bf16* data = nullptr;  // [n, ld], columns from k on are padding
  int64_t n = 0, k = 0, ld = 0;
};

/// The weights of one model on the device: matrices [out, in] in bf16, vectors in bf16 and in float32. Those that the
/// table joins lie one after another.
class DeviceWeights final : public ProgramWeights {
 public:
  DeviceWeights(std::shared_ptr<Device> device, const WeightTable& table, const WeightSource& source);

  Precision precision() const override { return Precision::bfloat16; }
  DeviceMatrix matrix(int id) const;
  /// The rows of several matrices as one matrix; n is 0 where they do not lie one after another.
  DeviceMatrix joined(std::span<const int> ids) const;
  /// The same for vectors in bf16, of which all or none may be kNone. False where they do not.
  bool joined(std::span<const int> ids, const bf16** data) const;
  /// A matrix [n, heads * head_dim] whose columns are spread to [n, heads * pitch], zeros between: what follows
  /// attention over padded heads. Made on first use.
  DeviceMatrix spread(int id, int64_t heads, int64_t head_dim, int64_t pitch) const;
  const float* wide(int id) const;                         // of a vector; nullptr for kNone
  const bf16* narrow(int id) const;                        // of a vector; nullptr for kNone
  const float* ones() const { return ones_.as<float>(); }  // as many as the longest vector has elements
  Device& device() const { return *device_; }
  size_t bytes() const { return bytes_; }

 private:
  struct Entry {
    bf16* data = nullptr;  // in a block of its own, or behind the weight before it
    Block own, wide;
    int64_t n = 0, k = 0;  // k 0: a vector of n
    size_t elements() const;
  };
  void place(const WeightTable& table);
  bool adjacent(std::span<const int> ids) const;
  void upload(const WeightSpec& spec, const Tensor& raw, Entry& entry);

  std::shared_ptr<Device> device_;
  std::vector<Entry> entries_;
  Block ones_;
  size_t bytes_ = 0;
  mutable std::mutex mutex_;
  mutable std::map<int, Block> spread_;
};

}  // namespace wam::cuda
