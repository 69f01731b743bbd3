#pragma once

// What the parts of simt_golden share.
#include <memory>

#include "backend/cuda/backend.h"
#include "device/golden_sequence.h"
#include "model/families/dreamzero.h"
#include "sim_device.h"

namespace golden {

using namespace wam;
using golden_sequence::compare;

/// The recorded tensors, as arrays too.
struct Recorded : golden_sequence::Recorded {
  using golden_sequence::Recorded::Recorded;
  std::vector<float> values(const std::string& name) {
    const Tensor t = get(name);
    return {t.data<float>(), t.data<float>() + t.numel()};
  }
};

inline std::shared_ptr<Backend> simulated() {
  return std::make_shared<cuda::CudaBackend>(std::make_shared<sim::SimDevice>(), make_backend("cpu", 1));
}

inline std::shared_ptr<DreamZero> transformer(const json::Node& config, DreamZero::Grid2 grid,
                                              const std::string& weights) {
  auto model = std::make_shared<DreamZero>(read_dit_config(config), grid, "");
  WeightStore store = WeightStore::open(weights);
  model->load(simulated(), [&](const std::string& name, const Shape& shape) { return store.f32(name, shape); });
  return model;
}

// The kinds of case: recorded tensors, weights or a checkpoint's folder, what else is to be known.
void training(const std::string& file, const std::string& weights, json::Fields fields);
void block(const std::string& file, const std::string& weights, json::Fields fields);
void session(const std::string& file, const std::string& folder, json::Fields fields);

}  // namespace golden
