#pragma once

#include <cstdint>
#include <ctime>
#include <string>

namespace wam {

/// A regular file open for reading. What was checked at opening time stays true: a file that shrinks or changes later
/// is an Error at the next read, never a short or silent one.
class File {
 public:
  /// Follows links; refuses directories, devices and pipes. Throws Error.
  explicit File(const std::string& path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // bytes, when opened
  /// Fills `out` with `n` bytes from `offset`. Throws Error when the file has changed or ends early.
  void read(uint64_t offset, void* out, size_t n) const;
  /// Throws Error when size or modification time differ from those at opening time.
  void check_unchanged() const;
  int descriptor() const { return fd_; }

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  timespec modified_{};
};

/// Whole text file. Throws ConfigError when it is missing or larger than `max_bytes`.
std::string read_text(const std::string& path, size_t max_bytes);

}  // namespace wam
