#include "io/safetensors.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/text.h"
#include "io/json.h"
#include "wamcore/error.h"

namespace wam {

static_assert(std::endian::native == std::endian::little, "weight files are little-endian and read as they are");

namespace {

constexpr std::pair<std::string_view, DType> kDTypeNames[] = {
    {"F64", DType::f64}, {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16}, {"I64", DType::i64},
    {"I32", DType::i32}, {"I16", DType::i16}, {"I8", DType::i8},   {"U8", DType::u8},     {"BOOL", DType::boolean}};

File open_weights(const std::string& path) {
  try {
    return File(path);
  } catch (const Error& e) {
    throw WeightError(e.what());
  }
}

DType parse_dtype(const json::Node& node) {
  for (const auto& [name, dtype] : kDTypeNames)
    if (node.string() == name) return dtype;
  node.fail("element type " + quote(node.string()) + " is not supported");
}

void check_name(const json::Node& header, const std::string& name) {
  constexpr size_t kLongestName = 1024;
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (name.empty() || name.size() > kLongestName || std::any_of(name.begin(), name.end(), control))
    header.fail("tensor name " + quote(name) + " is empty, too long or has control characters");
}

TensorEntry parse_entry(const json::Node& node, const std::string& name, uint64_t data_begin, uint64_t data_bytes) {
  json::Fields fields = node.fields();
  TensorEntry entry{.name = name, .dtype = parse_dtype(fields.need("dtype"))};
  for (const json::Node& size : fields.need("shape").array()) entry.shape.push_back(size.integer(0));
  const json::Node range = fields.need("data_offsets");
  const std::vector<int64_t> offsets = range.integers(2);
  fields.finish();
  if (offsets[0] < 0 || offsets[1] < offsets[0] || static_cast<uint64_t>(offsets[1]) > data_bytes)
    range.fail("bytes " + std::to_string(offsets[0]) + " to " + std::to_string(offsets[1]) + " are not inside the " +
               std::to_string(data_bytes) + " bytes of data");
  entry.offset = data_begin + static_cast<uint64_t>(offsets[0]);
  entry.bytes = static_cast<uint64_t>(offsets[1] - offsets[0]);
  const size_t wanted = nbytes(entry.shape, entry.dtype);
  if (wanted != entry.bytes)
    range.fail(std::string(dtype_name(entry.dtype)) + " " + shape_string(entry.shape) + " takes " +
               std::to_string(wanted) + " bytes, got " + std::to_string(entry.bytes));
  return entry;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(open_weights(path)) {
  if (size() <= kPrivateBytes) {
    Tensor copy = Tensor::uninitialized({static_cast<int64_t>(size())}, DType::u8);
    read_file(0, copy.raw(), size());
    private_copy_ = std::move(copy);
  } else {
    void* const pages = mmap(nullptr, size(), PROT_READ, MAP_PRIVATE, file_.descriptor(), 0);
    if (pages == MAP_FAILED) fail(std::string("cannot map: ") + std::strerror(errno));
    mapped_ = static_cast<const std::byte*>(pages);
  }
  try {
    const std::string header = read_header();
    const uint64_t data_begin = sizeof(uint64_t) + header.size();
    parse_header(header, data_begin);
    check_tiling(data_begin);
  } catch (const ConfigError& e) {
    throw WeightError(e.what());
  } catch (const ShapeError& e) {
    fail(e.what());
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (mapped_) munmap(const_cast<std::byte*>(mapped_), size());
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : file_(std::move(other.file_)),
      entries_(std::move(other.entries_)),
      metadata_(std::move(other.metadata_)),
      private_copy_(std::move(other.private_copy_)),
      mapped_(std::exchange(other.mapped_, nullptr)) {}

void SafetensorsFile::fail(const std::string& what) const { throw WeightError(path() + ": " + what); }

std::string SafetensorsFile::read_header() const {
  uint64_t header_bytes = 0;
  if (size() < sizeof header_bytes) fail("wanted a header size in 8 bytes, the file has " + std::to_string(size()));
  read_file(0, &header_bytes, sizeof header_bytes);
  if (header_bytes > kMaxHeader)
    fail("the header claims " + std::to_string(header_bytes) + " bytes, more than the " + std::to_string(kMaxHeader) +
         " allowed");
  const uint64_t data_begin = sizeof header_bytes + header_bytes;
  if (data_begin > size())
    fail("truncated: the header ends at byte " + std::to_string(data_begin) + ", the file at " +
         std::to_string(size()));
  std::string text(header_bytes, '\0');
  read_file(sizeof header_bytes, text.data(), text.size());
  if (text.empty() || text.front() != '{') fail("the header does not start with '{'");
  if (text[text.find_last_not_of(' ')] != '}') fail("the header does not end with '}' and spaces");
  return text;
}

void SafetensorsFile::parse_header(const std::string& text, uint64_t data_begin) {
  // the deepest value is a size: header, tensor, shape
  const json::Limits limits{.bytes = kMaxHeader, .values = kMaxTensors * 16, .depth = 3};
  const json::Value document = json::parse(text, path() + ": header", limits);
  const json::Node header(document, path());
  const size_t count = header.object().members().size() - (header.object().find("__metadata__") ? 1 : 0);
  if (count > kMaxTensors)
    fail("wanted at most " + std::to_string(kMaxTensors) + " tensors, got " + std::to_string(count));
  entries_.reserve(count);
  for (const json::Member& member : header.object().members()) {
    const json::Node node(member.value, path() + ": " + quote(member.key));
    if (member.key == "__metadata__") {
      for (const json::Member& entry : node.object().members())
        metadata_[entry.key] = json::Node(entry.value, node.path() + "." + quote(entry.key)).string();
      continue;
    }
    check_name(header, member.key);
    entries_.push_back(parse_entry(node, member.key, data_begin, size() - data_begin));
  }
}

void SafetensorsFile::check_tiling(uint64_t data_begin) {
  std::sort(entries_.begin(), entries_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  uint64_t end = data_begin;
  for (const TensorEntry& entry : entries_) {
    if (entry.offset != end)
      fail("tensor " + quote(entry.name) + " begins at byte " + std::to_string(entry.offset - data_begin) +
           " of the data, " + (entry.offset > end ? "leaving a hole after byte " : "overlapping what ends at byte ") +
           std::to_string(end - data_begin));
    end += entry.bytes;
  }
  if (end != size()) fail(std::to_string(size() - end) + " bytes at the end belong to no tensor");
  std::sort(entries_.begin(), entries_.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), name,
                                   [](const TensorEntry& entry, std::string_view n) { return entry.name < n; });
  return at != entries_.end() && at->name == name ? &*at : nullptr;
}

void SafetensorsFile::read_file(uint64_t offset, void* out, size_t n) const {
  if (n == 0) return;  // `out` may be null then
  if (private_copy_) {
    std::memcpy(out, private_copy_.data<uint8_t>() + offset, n);
    return;
  }
  try {
    file_.read(offset, out, n);
  } catch (const Error& e) {
    throw WeightError(e.what());
  }
}

void SafetensorsFile::read(const TensorEntry& entry, uint64_t from, void* out, size_t n) const {
  if (from > entry.bytes || n > entry.bytes - from)
    fail("tensor " + quote(entry.name) + ": wanted bytes " + std::to_string(from) + " to " + std::to_string(from + n) +
         " of " + std::to_string(entry.bytes));
  read_file(entry.offset + from, out, n);
}

TensorView SafetensorsFile::view(const TensorEntry& entry) const {
  const std::byte* const base = mapped_ ? mapped_ : static_cast<const std::byte*>(private_copy_.raw());
  if (mapped_) {
    try {
      file_.check_unchanged();
    } catch (const Error& e) {
      throw WeightError(e.what());
    }
  }
  return {base + entry.offset, entry.dtype, entry.shape};
}

}  // namespace wam
