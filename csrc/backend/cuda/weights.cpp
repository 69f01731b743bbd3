#include "backend/cuda/weights.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam::cuda {
namespace {

// Rows of matrices begin at multiples of 16 bytes, which the tensor-core kernels want.
int64_t padded(int64_t k) { return (k + 7) / 8 * 8; }

}  // namespace

DeviceWeights::DeviceWeights(std::shared_ptr<Device> device, const WeightTable& table, const WeightSource& source)
    : device_(std::move(device)) {
  int64_t longest = 1;
  for (const WeightSpec& spec : table.specs()) {
    const Tensor raw = source(spec.name, spec.shape);
    const float* from = raw.data<float>();
    Entry entry;
    std::vector<bf16> narrow;
    if (spec.use == WeightUse::conv) throw WeightError("DeviceWeights: " + spec.name + " is a convolution");
    if (spec.use == WeightUse::vector) {
      entry.n = raw.numel();
      longest = std::max(longest, entry.n);
      narrow.resize(static_cast<size_t>(entry.n));
      std::transform(from, from + entry.n, narrow.begin(), [](float v) { return kc::to_bf16(v); });
      entry.wide = Block(*device_, static_cast<size_t>(entry.n) * sizeof(float));
      device_->upload(entry.wide.as<>(), from, entry.wide.bytes());
    } else {
      const bool transposed = spec.use == WeightUse::matrix_transposed;
      entry.n = transposed ? spec.shape.back() : spec.shape.front();
      entry.k = raw.numel() / entry.n;
      const int64_t ld = padded(entry.k);
      narrow.assign(static_cast<size_t>(entry.n * ld), bf16{0});
      for (int64_t i = 0; i < entry.n; ++i)
        for (int64_t j = 0; j < entry.k; ++j)
          narrow[static_cast<size_t>(i * ld + j)] =
              kc::to_bf16(transposed ? from[j * entry.n + i] : from[i * entry.k + j]);
    }
    entry.data = Block(*device_, narrow.size() * sizeof(bf16));
    device_->upload(entry.data.as<>(), narrow.data(), entry.data.bytes());
    bytes_ += entry.data.bytes() + entry.wide.bytes();
    entries_.push_back(std::move(entry));
  }
  const std::vector<float> ones(static_cast<size_t>(longest), 1.0f);
  ones_ = Block(*device_, ones.size() * sizeof(float));
  device_->upload(ones_.as<>(), ones.data(), ones_.bytes());
}

DeviceMatrix DeviceWeights::matrix(int id) const {
  const Entry& e = entries_.at(static_cast<size_t>(id));
  return {e.data.as<bf16>(), e.n, e.k, padded(e.k)};
}

DeviceMatrix DeviceWeights::spread(int id, int64_t heads, int64_t head_dim, int64_t pitch) const {
  const DeviceMatrix m = matrix(id);
  if (pitch == head_dim) return m;
  const std::lock_guard lock(mutex_);
  const int64_t wide = heads * pitch;
  Block& block = spread_[id];
  if (!block.bytes()) {
    std::vector<bf16> from(static_cast<size_t>(m.n * m.ld)), to(static_cast<size_t>(m.n * wide), bf16{0});
    device_->download(from.data(), m.data, from.size() * sizeof(bf16));
    for (int64_t i = 0; i < m.n; ++i)
      for (int64_t h = 0; h < heads; ++h)
        std::copy_n(from.data() + i * m.ld + h * head_dim, head_dim, to.data() + i * wide + h * pitch);
    block = Block(*device_, to.size() * sizeof(bf16));
    device_->upload(block.as<>(), to.data(), block.bytes());
  }
  return {block.as<bf16>(), m.n, wide, wide};
}

const float* DeviceWeights::wide(int id) const {
  return id < 0 ? nullptr : entries_.at(static_cast<size_t>(id)).wide.as<float>();
}
const bf16* DeviceWeights::narrow(int id) const {
  return id < 0 ? nullptr : entries_.at(static_cast<size_t>(id)).data.as<bf16>();
}

}  // namespace wam::cuda
