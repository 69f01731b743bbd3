#include "backend/cuda/weights.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "wamcore/error.h"

namespace wam::cuda {
namespace {

// Rows of matrices begin at multiples of 16 bytes, which the tensor-core kernels want.
int64_t padded(int64_t k) { return (k + 7) / 8 * 8; }

// body(begin, end) for parts of [0, rows) on all cores, where there is enough to do: a matrix of a large model is 70
// million numbers.
template <typename Body>
void parallel(int64_t rows, int64_t cols, const Body& body) {
  const int64_t cores = std::thread::hardware_concurrency(), worth = rows * cols >> 14;
  const int64_t parts = std::clamp<int64_t>(std::min(cores, worth), 1, rows);
  std::vector<std::jthread> threads;
  for (int64_t i = 1; i < parts; ++i) threads.emplace_back(body, rows * i / parts, rows * (i + 1) / parts);
  body(int64_t{0}, rows / parts);
}

// What the FP8 product and the kernel that quantises ask.
bool fits_fp8(int64_t n, int64_t k) { return k > 0 && n % 8 == 0 && k % 16 == 0; }

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
  size_t largest = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].after >= 0) continue;
    std::vector<int> chain;
    bool quantised = precision_ == Precision::fp8;
    for (int at = static_cast<int>(i); at >= 0; at = next[static_cast<size_t>(at)]) {
      const Entry& e = entries_[static_cast<size_t>(at)];
      chain.push_back(at);
      quantised = quantised && specs[static_cast<size_t>(at)].use == WeightUse::layer_matrix && fits_fp8(e.n, e.k);
    }
    place_chain(chain, quantised);
    for (const int at : chain)
      if (quantised) largest = std::max(largest, entries_[static_cast<size_t>(at)].elements());
  }
  if (largest) staging_ = Block(*device_, largest * sizeof(bf16));
}

// One block for weights that lie one after another.
void DeviceWeights::place_chain(const std::vector<int>& ids, bool quantised) {
  size_t elements = 0, rows = 0;
  for (const int id : ids) {
    elements += entries_[static_cast<size_t>(id)].elements();
    rows += static_cast<size_t>(entries_[static_cast<size_t>(id)].n);
  }
  Entry& first = entries_[static_cast<size_t>(ids[0])];
  first.own = Block(*device_, elements * (quantised ? sizeof(e4m3) : sizeof(bf16)));
  if (quantised) first.own_scale = Block(*device_, rows * sizeof(float));
  bytes_ += first.own.bytes() + first.own_scale.bytes();
  elements = rows = 0;
  for (const int id : ids) {
    Entry& entry = entries_[static_cast<size_t>(id)];
    if (quantised)
      entry.quantised = first.own.as<e4m3>() + elements, entry.scale = first.own_scale.as<float>() + rows;
    else
      entry.data = first.own.as<bf16>() + elements;
    elements += entry.elements();
    rows += static_cast<size_t>(entry.n);
  }
}

void DeviceWeights::upload(const WeightSpec& spec, const Tensor& raw, Entry& entry) {
  const float* from = raw.data<float>();
  const size_t count = entry.elements();
  const auto narrow = std::make_unique_for_overwrite<bf16[]>(count);
  if (entry.k == 0) {
    std::transform(from, from + entry.n, narrow.get(), [](float v) { return kc::to_bf16(v); });
    entry.wide = Block(*device_, static_cast<size_t>(entry.n) * sizeof(float));
    device_->upload(entry.wide.as<>(), from, entry.wide.bytes());
    bytes_ += entry.wide.bytes();
  } else {
    const bool transposed = spec.use == WeightUse::matrix_transposed;
    const int64_t ld = padded(entry.k);
    parallel(entry.n, ld, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        bf16* const row = narrow.get() + i * ld;
        for (int64_t j = 0; j < entry.k; ++j)
          row[j] = kc::to_bf16(transposed ? from[j * entry.n + i] : from[i * entry.k + j]);
        std::fill(row + entry.k, row + ld, bf16{0});
      }
    });
  }
  bf16* to = entry.quantised ? staging_.as<bf16>() : entry.data;
  device_->upload(to, narrow.get(), count * sizeof(bf16));
  if (entry.quantised)
    device_->launch(kc::QuantizeRowsParams{.x = to,
                                           .y = entry.quantised,
                                           .scale = entry.scale,
                                           .rows = static_cast<int32_t>(entry.n),
                                           .cols = static_cast<int32_t>(entry.k),
                                           .ldx = padded(entry.k),
                                           .ldy = entry.k});
}

DeviceWeights::DeviceWeights(std::shared_ptr<Device> device, const WeightTable& table, const WeightSource& source,
                             Precision precision)
    : device_(std::move(device)), precision_(precision) {
  place(table);
  int64_t longest = 1;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const WeightSpec& spec = table.specs()[i];
    upload(spec, source(spec.name, spec.shape), entries_[i]);
    if (entries_[i].k == 0) longest = std::max(longest, entries_[i].n);
  }
  staging_ = Block();
  const std::vector<float> ones(static_cast<size_t>(longest), 1.0f);
  ones_ = Block(*device_, ones.size() * sizeof(float));
  device_->upload(ones_.as<>(), ones.data(), ones_.bytes());
}

DeviceMatrix DeviceWeights::matrix(int id) const {
  const Entry& e = entries_.at(static_cast<size_t>(id));
  return {.data = e.data, .quantised = e.quantised, .scale = e.scale, .n = e.n, .k = e.k, .ld = padded(e.k)};
}

bool DeviceWeights::adjacent(std::span<const int> ids) const {
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const Entry &a = entries_.at(static_cast<size_t>(ids[i])), &b = entries_.at(static_cast<size_t>(ids[i + 1]));
    if (a.k != b.k || !a.quantised != !b.quantised) return false;
    if (a.quantised ? b.quantised != a.quantised + a.elements() : b.data != a.data + a.elements()) return false;
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
    const int64_t element = m.quantised ? sizeof(e4m3) : sizeof(bf16);
    std::vector<std::byte> from(static_cast<size_t>(m.n * m.ld * element)),
        to(static_cast<size_t>(m.n * wide * element));
    device_->download(from.data(), m.quantised ? static_cast<const void*>(m.quantised) : m.data, from.size());
    for (int64_t i = 0; i < m.n; ++i)
      for (int64_t h = 0; h < heads; ++h)
        std::copy_n(from.data() + (i * m.ld + h * head_dim) * element, head_dim * element,
                    to.data() + (i * wide + h * pitch) * element);
    block = Block(*device_, to.size());
    device_->upload(block.as<>(), to.data(), block.bytes());
  }
  DeviceMatrix all{.scale = m.scale, .n = m.n, .k = wide, .ld = wide};
  (m.quantised ? all.quantised = block.as<e4m3>() : (all.data = block.as<bf16>(), nullptr));
  return all;
}

const float* DeviceWeights::wide(int id) const {
  return id < 0 ? nullptr : entries_.at(static_cast<size_t>(id)).wide.as<float>();
}
const bf16* DeviceWeights::narrow(int id) const { return id < 0 ? nullptr : entries_.at(static_cast<size_t>(id)).data; }

}  // namespace wam::cuda
