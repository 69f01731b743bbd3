#include "backend/cuda/weights.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam::cuda {
namespace {

// Rows of matrices begin at multiples of 16 bytes, which the tensor-core kernels want.
int64_t padded(int64_t k) { return (k + 7) / 8 * 8; }

}  // namespace

size_t DeviceWeights::Entry::elements() const { return static_cast<size_t>(n * (k ? padded(k) : 1)); }

// Sizes, and memory: a block for each weight that is not behind another, which holds those behind it too.
void DeviceWeights::place(const WeightTable& table) {
  const std::vector<WeightSpec>& specs = table.specs();
  entries_.resize(specs.size());
  std::vector<int> next(specs.size(), -1);
  for (size_t i = 0; i < specs.size(); ++i) {
    const WeightSpec& spec = specs[i];
    if (spec.use == WeightUse::conv) throw WeightError("DeviceWeights: " + spec.name + " is a convolution");
    Entry& entry = entries_[i];
    entry.n = numel(spec.shape);
    if (spec.use != WeightUse::vector) {
      const bool transposed = spec.use == WeightUse::matrix_transposed;
      entry.n = transposed ? spec.shape.back() : spec.shape.front();
      entry.k = numel(spec.shape) / entry.n;
    }
    if (spec.after >= 0) next[static_cast<size_t>(spec.after)] = static_cast<int>(i);
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].after >= 0) continue;
    size_t count = 0;
    for (int at = static_cast<int>(i); at >= 0; at = next[static_cast<size_t>(at)])
      count += entries_[static_cast<size_t>(at)].elements();
    entries_[i].own = Block(*device_, count * sizeof(bf16));
    bytes_ += entries_[i].own.bytes();
    bf16* data = entries_[i].own.as<bf16>();
    for (int at = static_cast<int>(i); at >= 0; at = next[static_cast<size_t>(at)]) {
      Entry& entry = entries_[static_cast<size_t>(at)];
      entry.data = data;
      data += entry.elements();
    }
  }
}

void DeviceWeights::upload(const WeightSpec& spec, const Tensor& raw, Entry& entry) {
  const float* from = raw.data<float>();
  std::vector<bf16> narrow(entry.elements(), bf16{0});
  if (entry.k == 0) {
    std::transform(from, from + entry.n, narrow.begin(), [](float v) { return kc::to_bf16(v); });
    entry.wide = Block(*device_, static_cast<size_t>(entry.n) * sizeof(float));
    device_->upload(entry.wide.as<>(), from, entry.wide.bytes());
    bytes_ += entry.wide.bytes();
  } else {
    const bool transposed = spec.use == WeightUse::matrix_transposed;
    const int64_t ld = padded(entry.k);
    for (int64_t i = 0; i < entry.n; ++i)
      for (int64_t j = 0; j < entry.k; ++j)
        narrow[static_cast<size_t>(i * ld + j)] =
            kc::to_bf16(transposed ? from[j * entry.n + i] : from[i * entry.k + j]);
  }
  device_->upload(entry.data, narrow.data(), narrow.size() * sizeof(bf16));
}

DeviceWeights::DeviceWeights(std::shared_ptr<Device> device, const WeightTable& table, const WeightSource& source)
    : device_(std::move(device)) {
  place(table);
  int64_t longest = 1;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const WeightSpec& spec = table.specs()[i];
    upload(spec, source(spec.name, spec.shape), entries_[i]);
    if (entries_[i].k == 0) longest = std::max(longest, entries_[i].n);
  }
  const std::vector<float> ones(static_cast<size_t>(longest), 1.0f);
  ones_ = Block(*device_, ones.size() * sizeof(float));
  device_->upload(ones_.as<>(), ones.data(), ones_.bytes());
}

DeviceMatrix DeviceWeights::matrix(int id) const {
  const Entry& e = entries_.at(static_cast<size_t>(id));
  return {e.data, e.n, e.k, padded(e.k)};
}

bool DeviceWeights::adjacent(std::span<const int> ids) const {
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const Entry &a = entries_.at(static_cast<size_t>(ids[i])), &b = entries_.at(static_cast<size_t>(ids[i + 1]));
    if (b.data != a.data + a.elements() || a.k != b.k) return false;
  }
  return true;
}

DeviceMatrix DeviceWeights::joined(std::span<const int> ids) const {
  if (!adjacent(ids)) return {};
  DeviceMatrix all = matrix(ids[0]);
  for (const int id : ids.subspan(1)) all.n += matrix(id).n;
  return all;
}

bool DeviceWeights::joined(std::span<const int> ids, const bf16** data) const {
  *data = narrow(ids[0]);
  if (std::all_of(ids.begin(), ids.end(), [](int id) { return id < 0; })) return true;
  return std::all_of(ids.begin(), ids.end(), [](int id) { return id >= 0; }) && adjacent(ids);
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
const bf16* DeviceWeights::narrow(int id) const { return id < 0 ? nullptr : entries_.at(static_cast<size_t>(id)).data; }

}  // namespace wam::cuda
