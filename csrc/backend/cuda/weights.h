#pragma once

#include <map>
#include <mutex>

#include "backend/cuda/device.h"
#include "backend/weights.h"

namespace wam::cuda {

using kc::bf16;
using kc::e4m3;

/// A matrix on the device as kernels read it: in bf16, or in e4m3 with a scale a row.
struct DeviceMatrix {
  const bf16* data = nullptr;       // [n, ld], columns from k on are padding
  const e4m3* quantised = nullptr;  // [n, ld]
  const float* scale = nullptr;     // [n], with `quantised`
  int64_t n = 0, k = 0, ld = 0;
};

/// The weights of one model on the device: matrices [out, in] in bf16, vectors in bf16 and in float32. With fp8 the
/// layers' large matrices are in e4m3 instead, where their sizes allow it. Those that the table joins lie one after
/// another.
class DeviceWeights final : public ProgramWeights {
 public:
  DeviceWeights(std::shared_ptr<Device> device, const WeightTable& table, const WeightSource& source,
                Precision precision);

  Precision precision() const override { return precision_; }
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
    bf16* data = nullptr;       // in a block of its own, or behind the weight before it
    e4m3* quantised = nullptr;  // or this and `scale`
    float* scale = nullptr;
    Block own, own_scale, wide;
    int64_t n = 0, k = 0;  // k 0: a vector of n
    size_t elements() const;
  };
  void place(const WeightTable& table);
  void place_chain(const std::vector<int>& ids, bool quantised);
  bool adjacent(std::span<const int> ids) const;
  void upload(const WeightSpec& spec, const Tensor& raw, Entry& entry);

  std::shared_ptr<Device> device_;
  Precision precision_;
  Block staging_;  // of matrices in bf16 on their way to e4m3, while loading
  std::vector<Entry> entries_;
  Block ones_;
  size_t bytes_ = 0;
  mutable std::mutex mutex_;
  mutable std::map<int, Block> spread_;
};

}  // namespace wam::cuda
