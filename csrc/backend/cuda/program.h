#pragma once

#include <map>
#include <mutex>

#include "backend/backend.h"
#include "backend/cuda/weights.h"

namespace wam::cuda {

/// Elements from one head to the next in keys, values and queries: what the attention kernels know.
int64_t head_pitch(int64_t head_dim);

/// One call of a list, and what it makes, for taps.
struct Step {
  Call call;
  struct Seen {
    std::string label;
    const void* data = nullptr;  // [rows, cols], row stride `stride`
    bool wide = false;           // float32, else bf16
    int64_t rows = 0, cols = 0, stride = 0;
  };
  std::vector<Seen> seen;
};

/// Where the buffers of a plan lie in the workspace, and what their elements are.
struct Placement {
  struct Buffer {
    size_t offset = 0;  // bytes
    bool wide = false;  // float32, else bf16
    bool input = false, output = false;
  };
  std::vector<Buffer> buffers;
  size_t q = 0, k = 0, v = 0, out = 0;  // padded heads; the plan's own buffers where nothing is padded
  size_t raw_k = 0, raw_v = 0;          // context rows before norm and padding
  size_t square = 0;                    // sums of squares between a projection and its norm
  size_t split_out = 0, split_lse = 0;  // of attentions whose keys are divided
  size_t eight = 0, eight_scale = 0;    // rows in e4m3 between their producer and a product
  int splits = 1;                       // that there is room for
  size_t live = 0, slots = 0;           // the part that every run uploads
  size_t live_tables = 0;               // of kc::kMaxQueryGroups * kc::kMaxKeySegments rows each
  size_t bytes = 0;
};

/// A plan as a list of kernel calls over device memory. The list is made once for each set of addresses (workspace,
/// memory, context), recorded, and repeated; what changes from run to run is uploaded before: inputs, which rows of the
/// memory are read and which are written.
class CudaProgram final : public Program {
 public:
  CudaProgram(Plan plan, std::shared_ptr<const DeviceWeights> weights);
  void run(const Bindings& b) const override;
  int64_t workspace_floats() const override { return static_cast<int64_t>(place_.bytes / sizeof(float)); }

  const Plan& plan() const { return plan_; }
  const Placement& place() const { return place_; }
  const DeviceWeights& weights() const { return *weights_; }
  /// Constants on the device, in the order of use in the plan's nodes.
  const int32_t* rows(const std::vector<int32_t>& time_row) const;
  const float* rope(int table, bool sine) const;

  /// The calls that a run with these bindings makes, for tests that count them.
  std::vector<Step> steps(const Bindings& b) const;

 private:
  struct Instance {
    std::vector<Step> steps;
    std::unique_ptr<Recording> recording;
    Device::Counts counts;  // of the kernels in it
  };
  std::shared_ptr<const Instance> instance(const Bindings& b) const;
  void upload(const Bindings& b) const;
  void show(const Step& step, const Tap& tap) const;

  Plan plan_;
  std::shared_ptr<const DeviceWeights> weights_;
  Placement place_;
  Block constants_;
  std::map<std::vector<int32_t>, size_t> row_offset_;
  std::vector<std::pair<size_t, size_t>> rope_offset_;
  mutable std::mutex mutex_;
  mutable std::map<std::vector<const void*>, std::shared_ptr<const Instance>> instances_;
};

}  // namespace wam::cuda
