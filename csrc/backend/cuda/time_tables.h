#pragma once

#include "backend/cuda/lowering.h"

namespace wam::cuda {

/// The nodes of a plan that depend on timesteps and weights alone, the embeddings of time. They write whole arrays, and
/// plans let no other kind of node write those. Modulation is not among them: the kernels that read it add it up.
std::vector<bool> time_nodes(const Plan& plan, BufferId timesteps);

/// The array that such a node writes.
BufferId written(const Node& node);

/// What those nodes make, computed once for each set of timesteps instead of once a pass. Passes over different frames
/// share it.
class TimeTables {
 public:
  explicit TimeTables(Device& device) : device_(device) {}

  /// The arrays that the time nodes write, in their order. `timesteps` as the plan's buffer wants them. Computed now if
  /// it has not been yet; not for the middle of a recording.
  const std::vector<std::byte*>& arrays(const CudaProgram& program, BufferId timesteps,
                                        const std::vector<float>& values);
  size_t bytes() const;

 private:
  struct Table {
    Block block;
    std::vector<std::byte*> arrays;
  };
  Device& device_;
  std::map<std::pair<std::string, std::vector<float>>, Table> tables_;
};

}  // namespace wam::cuda
