#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace wam::cuda {

/// Programs on a device, keys and values in its memory in bf16, heads padded to what the attention kernel takes. Single
/// operations (codecs, solver) run on the CPU: arrays outside of programs lie in the host's memory.
class CudaBackend final : public Backend {
 public:
  /// `whole_chunks`: false runs chunks pass by pass, to compare the two.
  CudaBackend(std::shared_ptr<Device> device, std::shared_ptr<Backend> cpu, bool whole_chunks = true)
      : device_(std::move(device)), cpu_(std::move(cpu)), whole_chunks_(whole_chunks) {}
  std::string_view name() const override { return "cuda"; }
  int threads() const override { return cpu_->threads(); }
  Ops& ops() override { return cpu_->ops(); }
  std::shared_ptr<const PackedWeights> pack(const WeightTable& table, const WeightSource& source) override {
    return cpu_->pack(table, source);
  }
  std::shared_ptr<const ProgramWeights> load(const WeightTable& table, const WeightSource& source,
                                             Precision wanted) override;
  std::unique_ptr<Program> compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) override;
  std::unique_ptr<ChunkSampler> chunks(const std::vector<ChunkSpec>& specs) override;

  std::vector<OperationReport> operations() const override;

  std::shared_ptr<float> allocate_keys(int64_t rows, int64_t heads, int64_t head_dim) override;
  void read_keys(const float* keys, RowRange range, int64_t heads, int64_t head_dim, float* to) override;
  void write_keys(float* keys, RowRange range, int64_t heads, int64_t head_dim, const float* from) override;
  std::shared_ptr<float> allocate_workspace(int64_t floats) override;
  size_t key_bytes(int64_t rows, int64_t heads, int64_t head_dim) const override;
  std::optional<size_t> free_bytes() const override { return device_->free_bytes(); }
  /// A weight in bf16 is two bytes and two operations a row: 790 TFLOP/s against 4.3 TB/s on an H200.
  int64_t weight_bound_rows() const override { return 184; }

 private:
  std::shared_ptr<float> allocate(size_t bytes);
  void check_room(const WeightTable& table, Precision precision) const;

  std::shared_ptr<Device> device_;
  std::shared_ptr<Backend> cpu_;
  bool whole_chunks_;
};

}  // namespace wam::cuda
