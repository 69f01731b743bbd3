#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "wamcore/export.h"

namespace wam {

/// The tensors of a checkpoint by name, whichever files they lie in, and an account of which were read. One thread at a
/// time.
class WAMCORE_API WeightStore {
 public:
  /// `path` is a .safetensors file, an index (.safetensors.index.json), or a folder with model.safetensors or
  /// model.safetensors.index.json, not both. Files found through a folder or index must lie in that folder, links
  /// resolved; index and shards must agree on every name. Throws WeightError.
  static WeightStore open(const std::string& path);

  /// Adds the tensors of another store under prefix + name. Throws WeightError when a name is taken.
  void attach(const WeightStore& other, const std::string& prefix = "");

  size_t size() const { return slots_.size(); }
  bool contains(std::string_view name) const { return slots_.find(name) != slots_.end(); }
  std::vector<std::string> names() const;  // sorted
  /// Element type, shape and place, without counting as a read. A missing name is a WeightError that names the nearest.
  const TensorEntry& entry(std::string_view name) const;

  // Each of these counts as a read.
  /// The stored bytes, perhaps unaligned; valid while a store with this tensor lives. See SafetensorsFile::view.
  TensorView view(std::string_view name);
  /// An aligned copy in the stored element type.
  Tensor stored(std::string_view name);
  /// A copy as f32, converted from f16, bf16 or f64. WeightError when shape or element type are not what is wanted.
  Tensor f32(std::string_view name, const Shape& wanted);
  /// Accepts a tensor that is known and deliberately not used.
  void ignore(std::string_view name);

  /// Names never read, sorted.
  std::vector<std::string> unused() const;
  /// Throws WeightError when unused() is not empty, naming the first few.
  void check_all_used() const;
  /// Reads every floating-point tensor; throws WeightError naming the first element that is NaN or infinite.
  void check_finite() const;

 private:
  struct Slot {
    std::shared_ptr<const SafetensorsFile> file;
    const TensorEntry* entry = nullptr;
    bool used = false;
  };
  void add_file(const std::string& path);
  void open_index(const std::string& path);
  const Slot& slot(std::string_view name) const;
  Slot& use(std::string_view name);

  std::map<std::string, Slot, std::less<>> slots_;
};

}  // namespace wam
