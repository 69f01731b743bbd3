#pragma once

// Writes weight files, good and bad ones, for tests. The library itself only reads them.
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "wamcore/tensor.h"

namespace files {

/// A fresh folder that goes away with its owner.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wamcore_XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make " + pattern);
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string write(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);  // a new file: some file systems flush one that is truncated and written again
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

inline std::string size_prefix(uint64_t n) { return {reinterpret_cast<const char*>(&n), sizeof n}; }

/// The file with this header and data, whatever they are.
inline std::string raw_file(const std::string& header, const std::string& data) {
  return size_prefix(header.size()) + header + data;
}

struct NamedTensor {
  std::string name;
  std::string dtype;  // as in the file: "F32"
  wam::Shape shape;
  std::string bytes;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
inline NamedTensor f32(const std::string& name, const wam::Shape& shape, const std::vector<float>& values) {
  return {name, "F32", shape, bytes_of(values)};
}

inline std::string header_entry(const NamedTensor& t, size_t begin) {
  return "\"" + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":" + wam::shape_string(t.shape) +
         ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(begin + t.bytes.size()) + "]}";
}

/// A good file with these tensors in this order. `padding` spaces end the header, which shifts the data's alignment.
inline std::string tensor_file(const std::vector<NamedTensor>& tensors, size_t padding = 0) {
  std::string header = "{", data;
  for (const NamedTensor& t : tensors) {
    header += (header.size() > 1 ? "," : "") + header_entry(t, data.size());
    data += t.bytes;
  }
  return raw_file(header + "}" + std::string(padding, ' '), data);
}

}  // namespace files
