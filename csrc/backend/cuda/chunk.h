#pragma once

#include "backend/chunk.h"
#include "backend/cuda/time_tables.h"

namespace wam::cuda {

/// Whole chunks of one session, a recording for each kind: the observed frames into memory, every executed step's
/// passes, guidance and solver. A run uploads one block of memory, repeats the recording and downloads one block.
class CudaChunks final : public ChunkSampler {
 public:
  CudaChunks(std::shared_ptr<Device> device, const std::vector<ChunkSpec>& specs);
  void run(size_t chunk, const ChunkInputs& in, float* video, float* action) override;

  /// The calls of a chunk, for tests that count them.
  const Device::Counts& counts(size_t chunk) const { return chunks_.at(chunk).counts; }

 private:
  // Offsets in the block that every run uploads. Sizes are those of the largest chunk. What is downloaded lies last.
  struct Layout {
    size_t step = 0, slots = 0, live_stored = 0, live_read = 0, pull = 0, target = 0, weight = 0;
    size_t clean = 0, clean_condition = 0, condition = 0, state = 0, video = 0, action = 0, bytes = 0;
  };
  // What the solver keeps between steps.
  struct SolverState {
    float *velocity = nullptr, *last = nullptr, *history = nullptr;
  };
  struct Chunk {
    std::unique_ptr<Recording> recording;
    Device::Counts counts;
    Block constants;  // the solvers' coefficients, timesteps
    const CudaProgram *storing = nullptr, *reading = nullptr;
    size_t clean = 0, clean_condition = 0, condition = 0, state = 0;  // floats
    bool pulled = false;
  };

  void lay_out(const std::vector<ChunkSpec>& specs);
  Chunk make(const ChunkSpec& spec);
  std::vector<Call> pass(const ChunkSpec& spec, const ChunkPass& pass, const std::vector<float>& timesteps,
                         std::byte* timesteps_at, int branch);
  Call solve(const ChunkSpec& spec, const ChunkStep& step, const Chunk& chunk);
  Site site(const ChunkPass& pass, std::byte* timesteps, int branch);

  std::shared_ptr<Device> device_;
  TimeTables tables_;
  Layout at_;
  int branches_ = 1;
  Block workspace_, inputs_, solver_memory_;
  SolverState video_, action_;
  std::vector<std::byte> staged_;  // what is uploaded, then what is downloaded
  size_t video_floats_ = 0, action_floats_ = 0;
  std::vector<Chunk> chunks_;
};

}  // namespace wam::cuda
