#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "wamcore/error.h"

namespace wam {

File::File(const std::string& path) : path_(path) {
  // not blocking: else opening a pipe would wait for its writer
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw Error(path + ": cannot open: " + std::strerror(errno));
  struct stat status {};
  if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd_);
    throw Error(path + ": not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
  modified_ = status.st_mtim;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      modified_(other.modified_) {}

void File::check_unchanged() const {
  struct stat status {};
  if (fstat(fd_, &status) != 0) throw Error(path_ + ": cannot stat: " + std::strerror(errno));
  if (static_cast<uint64_t>(status.st_size) != size_)
    throw Error(path_ + ": changed while open: had " + std::to_string(size_) + " bytes, has " +
                std::to_string(status.st_size));
  if (status.st_mtim.tv_sec != modified_.tv_sec || status.st_mtim.tv_nsec != modified_.tv_nsec)
    throw Error(path_ + ": changed while open: it was written to");
}

void File::read(uint64_t offset, void* out, size_t n) const {
  auto* bytes = static_cast<char*>(out);
  size_t done = 0;
  while (done < n) {
    const ssize_t got = pread(fd_, bytes + done, n - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(path_ + ": cannot read: " + std::strerror(errno));
    if (got == 0)
      throw Error(path_ + ": wanted " + std::to_string(n) + " bytes at " + std::to_string(offset) +
                  ", the file ends at " + std::to_string(offset + done));
    done += static_cast<size_t>(got);
  }
  check_unchanged();
}

std::string read_text(const std::string& path, size_t max_bytes) {
  try {
    const File file(path);
    if (file.size() > max_bytes)
      throw ConfigError(path + ": wanted at most " + std::to_string(max_bytes) + " bytes, got " +
                        std::to_string(file.size()));
    std::string text(file.size(), '\0');
    file.read(0, text.data(), text.size());
    return text;
  } catch (const ConfigError&) {
    throw;
  } catch (const Error& e) {
    throw ConfigError(e.what());
  }
}

}  // namespace wam
