#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "wamcore/tensor.h"

namespace wam {

/// One tensor of a file.
struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  uint64_t offset = 0;  // of its first byte, from the start of the file
  uint64_t bytes = 0;
};

/// A safetensors file, checked in full when it is opened:
///
///     u64 little-endian N | N bytes of JSON | data
///
/// The JSON starts with '{', is padded with spaces only, and maps each name to {dtype, shape, data_offsets};
/// __metadata__ maps strings to strings. Keys are unique, every size follows from dtype and shape, and the tensors tile
/// the data with no hole, overlap or rest. Beyond the format: at most kMaxHeader bytes of header, kMaxTensors tensors,
/// and names without control characters. Everything else is a WeightError.
///
/// A file that shrinks or is rewritten while it is open is a WeightError at the next access, not a crash: read() copies
/// through the file descriptor. Only view() of a file above kPrivateBytes hands out mapped pages, which the system
/// takes away when someone truncates the file while they are in use; smaller files are held in memory.
class WAMCORE_API SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeader = uint64_t{16} << 20;
  static constexpr size_t kMaxTensors = 65536;
  static constexpr uint64_t kPrivateBytes = uint64_t{64} << 20;

  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::string& path() const { return file_.path(); }
  uint64_t size() const { return file_.size(); }
  const std::vector<TensorEntry>& entries() const { return entries_; }  // sorted by name
  const TensorEntry* find(std::string_view name) const;                 // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Copies bytes [from, from + n) of a tensor.
  void read(const TensorEntry& entry, uint64_t from, void* out, size_t n) const;
  /// The bytes in place, at whatever alignment the file has; valid while this object lives.
  TensorView view(const TensorEntry& entry) const;

 private:
  std::string read_header() const;
  void parse_header(const std::string& text, uint64_t data_begin);
  void check_tiling(uint64_t data_begin);  // leaves entries_ sorted by name
  void read_file(uint64_t offset, void* out, size_t n) const;
  [[noreturn]] void fail(const std::string& what) const;

  File file_;
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
  Tensor private_copy_;                // of the whole file, when it is small
  const std::byte* mapped_ = nullptr;  // else
};

}  // namespace wam
