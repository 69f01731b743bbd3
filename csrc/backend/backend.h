#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/chunk.h"
#include "backend/ops.h"
#include "backend/plan.h"
#include "backend/views.h"
#include "backend/weights.h"
#include "wamcore/export.h"
#include "wamcore/operation.h"

namespace wam {

/// Called with each intermediate value of a run: label, data, rows, cols, row stride.
using Tap = std::function<void(const std::string&, const float*, int64_t, int64_t, int64_t)>;

/// What one run of a program works on. `external` is indexed by BufferId; entries of workspace buffers are ignored.
struct Bindings {
  std::span<float* const> external;
  const MemoryView* memory = nullptr;
  const ContextView* context = nullptr;
  float* workspace = nullptr;  // [Program::workspace_floats()]
  const Tap* tap = nullptr;    // slows the run down; nullptr in production
};

/// A plan made ready for one backend. Const: all that changes is in the bindings, so sessions share programs.
class Program {
 public:
  virtual ~Program() = default;
  virtual void run(const Bindings& b) const = 0;
  virtual int64_t workspace_floats() const = 0;
};

/// Level two of a backend: packed weights and whole programs.
class WAMCORE_API Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  virtual int threads() const = 0;
  virtual int caller_core() const { return -1; }  // where the thread that infers belongs; -1: anywhere
  virtual Ops& ops() = 0;
  /// Lays weights out for single operations, `ops`.
  virtual std::shared_ptr<const PackedWeights> pack(const WeightTable& table, const WeightSource& source) = 0;
  /// Lays the weights of a model out for its programs, on the device. Called once at load. Throws DeviceError for a
  /// precision that this backend or its device does not have.
  virtual std::shared_ptr<const ProgramWeights> load(const WeightTable& table, const WeightSource& source,
                                                     Precision wanted) = 0;
  virtual std::unique_ptr<Program> compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) = 0;
  /// Makes whole chunks of one session ready. nullptr: this backend runs a chunk pass by pass, as its caller asks.
  virtual std::unique_ptr<ChunkSampler> chunks(const std::vector<ChunkSpec>& specs);
  /// What ran so far, with the kernels that were really chosen; empty where a backend does not count.
  virtual std::vector<OperationReport> operations() const { return {}; }
  /// Times operations from here on, from nothing, or no longer. Throws DeviceError where a backend cannot.
  virtual void time_operations(bool on);
  virtual std::vector<OperationTime> operation_times() const { return {}; }

  // Keys and values are the backend's own: where they lie and of what elements they are is nobody else's business. The
  // pointers are handed back in views, and never read through outside of the backend.
  /// Room for `rows` rows of keys or values.
  virtual std::shared_ptr<float> allocate_keys(int64_t rows, int64_t heads, int64_t head_dim);
  /// Copies rows to or from float32 rows [range.rows, heads * head_dim].
  virtual void read_keys(const float* keys, RowRange range, int64_t heads, int64_t head_dim, float* to);
  virtual void write_keys(float* keys, RowRange range, int64_t heads, int64_t head_dim, const float* from);
  /// Bytes that those rows take, and bytes that are free; nothing where the host's own memory serves.
  virtual size_t key_bytes(int64_t rows, int64_t heads, int64_t head_dim) const {
    return static_cast<size_t>(rows * heads * head_dim) * sizeof(float);
  }
  virtual std::optional<size_t> free_bytes() const { return {}; }
  /// Rows of a product below which reading its weights takes longer than multiplying; 0: not known.
  virtual int64_t weight_bound_rows() const { return 0; }
  /// Scratch memory for programs.
  virtual std::shared_ptr<float> allocate_workspace(int64_t floats);
};

/// The instruction set that the CPU's kernels use for layers in `precision`. Throws DeviceError when WAMCORE_CPU_ISA
/// asks for one that is not there, and for a precision that the CPU does not have.
WAMCORE_API std::string cpu_isa(Precision precision = Precision::float32);

/// "cpu": fused layers; "cpu-ops": the plain loop over operations that "cpu" is compared with; "cuda" or "cuda:N": a
/// GPU, by the plugin. "auto" is "cpu" for as long as docs/verified_on_device.md has no row of the programs. Throws
/// DeviceError. Without `threads` there is one for each CPU that the process may use, or for each of `cores`, which pin
/// the threads of a CPU.
WAMCORE_API std::shared_ptr<Backend> make_backend(const std::string& device, std::optional<int> threads,
                                                  std::vector<int> cores = {});

}  // namespace wam
