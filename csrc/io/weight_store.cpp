#include "io/weight_store.h"

#include <algorithm>
#include <filesystem>

#include "core/text.h"
#include "io/convert.h"
#include "io/json.h"
#include "wamcore/error.h"

namespace wam {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkElements = size_t{1} << 18;  // a bounce buffer stays in the cache

// Calls f(bytes, index of first element, elements) for one piece of the tensor after another.
template <class F>
void for_chunks(const SafetensorsFile& file, const TensorEntry& entry, F&& f) {
  const size_t width = dtype_size(entry.dtype), count = entry.bytes / width;
  std::vector<std::byte> buffer(std::min(count, kChunkElements) * width);
  for (size_t begin = 0; begin < count; begin += kChunkElements) {
    const size_t n = std::min(kChunkElements, count - begin);
    file.read(entry, begin * width, buffer.data(), n * width);
    f(buffer.data(), static_cast<int64_t>(begin), static_cast<int64_t>(n));
  }
}

// The file `name` of `folder`. It may be a link to anywhere: Hugging Face's cache keeps the files in ../../blobs and
// only links in the folder of a checkpoint. Whoever made the folder made its links; what an index *names* is checked
// apart.
std::string inside(const fs::path& folder, const std::string& name) {
  const fs::path file = folder / name;
  std::error_code error;
  if (fs::exists(file, error)) return file.string();
  if (fs::is_symlink(file, error))
    throw WeightError(folder.string() + ": " + quote(name) + " is a link to " +
                      quote(fs::read_symlink(file, error).string()) + ", which is missing; was the download finished?");
  throw WeightError(folder.string() + ": file " + quote(name) + " is missing");
}

// A file or a link, even one that leads nowhere.
bool is_listed(const fs::path& file) {
  std::error_code error;
  return fs::exists(fs::symlink_status(file, error));
}

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kEnding = ".safetensors";
  return name.size() > kEnding.size() && name.ends_with(kEnding) && name.front() != '.' &&
         name.find_first_of("/\\") == std::string_view::npos && name.find("..") == std::string_view::npos &&
         std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

// name -> shard file, as the index says.
std::map<std::string, std::string> read_index(const std::string& path) {
  std::map<std::string, std::string> weight_map;
  try {
    const json::Value document = json::read(path, {.bytes = SafetensorsFile::kMaxHeader, .values = size_t{1} << 20});
    json::Fields index = json::Node(document, path).fields();
    index.ignore({"metadata"});  // total_size and the like: the shards themselves are the truth
    const json::Node map = index.need("weight_map");
    index.finish();
    for (const json::Member& member : map.object().members()) {
      const json::Node node(member.value, map.path() + "." + quote(member.key));
      if (!is_shard_name(node.string()))
        node.fail("wanted the name of a .safetensors file beside the index, got " + quote(node.string()));
      weight_map[member.key] = node.string();
    }
  } catch (const ConfigError& e) {
    throw WeightError(e.what());
  }
  return weight_map;
}

}  // namespace

WeightStore WeightStore::open(const std::string& path) {
  WeightStore store;
  const auto open_one = [&store](const std::string& file) {
    file.ends_with(".json") ? store.open_index(file) : store.add_file(file);
  };
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    open_one(path);
    return store;
  }
  const std::string single = "model.safetensors", index = "model.safetensors.index.json";
  const bool has_single = is_listed(fs::path(path) / single), has_index = is_listed(fs::path(path) / index);
  if (has_single == has_index)
    throw WeightError(path + ": wanted either " + single + " or " + index + ", got " +
                      (has_single ? "both" : "neither"));
  open_one(inside(path, has_single ? single : index));
  return store;
}

void WeightStore::add_file(const std::string& path) {
  const auto file = std::make_shared<const SafetensorsFile>(path);
  for (const TensorEntry& entry : file->entries()) {
    const auto [at, added] = slots_.try_emplace(entry.name, Slot{file, &entry});
    if (!added) throw WeightError(path + ": tensor " + quote(entry.name) + " is also in " + at->second.file->path());
  }
}

void WeightStore::open_index(const std::string& path) {
  const auto weight_map = read_index(path);
  std::vector<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.push_back(shard);
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  constexpr size_t kMostShards = 4096;  // each holds a file descriptor
  if (shards.size() > kMostShards)
    throw WeightError(path + ": wanted at most " + std::to_string(kMostShards) + " shards, got " +
                      std::to_string(shards.size()));

  const fs::path folder = fs::absolute(path).parent_path();
  for (const std::string& shard : shards) {
    const std::string file = inside(folder, shard);
    WeightStore one;
    one.add_file(file);
    for (const auto& [name, slot] : one.slots_) {
      const auto at = weight_map.find(name);
      if (at == weight_map.end()) throw WeightError(file + ": tensor " + quote(name) + " is not in the index");
      if (at->second != shard)
        throw WeightError(file + ": tensor " + quote(name) + " should be in " + at->second + ", says the index");
    }
    attach(one);
  }
  for (const auto& [name, shard] : weight_map)
    if (!contains(name)) throw WeightError(path + ": tensor " + quote(name) + " is not in " + shard);
}

void WeightStore::attach(const WeightStore& other, const std::string& prefix) {
  for (const auto& [name, slot] : other.slots_) {
    const auto [at, added] = slots_.try_emplace(prefix + name, slot);
    if (!added)
      throw WeightError(slot.file->path() + ": tensor " + quote(prefix + name) + " is also in " +
                        at->second.file->path());
  }
}

std::vector<std::string> WeightStore::names() const {
  std::vector<std::string> list;
  for (const auto& [name, slot] : slots_) list.push_back(name);
  return list;
}

const WeightStore::Slot& WeightStore::slot(std::string_view name) const {
  const auto at = slots_.find(name);
  if (at != slots_.end()) return at->second;
  const std::string near = nearest(name, names());
  throw WeightError("weights: no tensor " + quote(name) + " among " + std::to_string(size()) +
                    (near.empty() ? "" : "; the nearest is " + quote(near)));
}

WeightStore::Slot& WeightStore::use(std::string_view name) {
  Slot& found = const_cast<Slot&>(slot(name));
  found.used = true;
  return found;
}

const TensorEntry& WeightStore::entry(std::string_view name) const { return *slot(name).entry; }

void WeightStore::ignore(std::string_view name) { use(name); }

TensorView WeightStore::view(std::string_view name) {
  const Slot& found = use(name);
  return found.file->view(*found.entry);
}

Tensor WeightStore::stored(std::string_view name) {
  const Slot& found = use(name);
  Tensor copy = Tensor::uninitialized(found.entry->shape, found.entry->dtype);
  found.file->read(*found.entry, 0, copy.raw(), found.entry->bytes);
  return copy;
}

Tensor WeightStore::f32(std::string_view name, const Shape& wanted) {
  const Slot& found = use(name);
  const TensorEntry& entry = *found.entry;
  const bool floating = entry.dtype <= DType::bf16;
  if (entry.shape != wanted || !floating)
    throw WeightError(found.file->path() + ": tensor " + quote(name) + ": wanted floating point " +
                      shape_string(wanted) + ", got " + dtype_name(entry.dtype) + " " + shape_string(entry.shape));
  if (entry.dtype == DType::f32) return stored(name);
  Tensor result = Tensor::uninitialized(wanted);
  for_chunks(*found.file, entry, [&](const std::byte* bytes, int64_t begin, int64_t n) {
    if (!to_f32(bytes, entry.dtype, n, result.data<float>() + begin))
      throw WeightError(found.file->path() + ": tensor " + quote(name) + ": a value is too large for f32");
  });
  return result;
}

std::vector<std::string> WeightStore::unused() const {
  std::vector<std::string> list;
  for (const auto& [name, slot] : slots_)
    if (!slot.used) list.push_back(name);
  return list;
}

void WeightStore::check_all_used() const {
  const std::vector<std::string> left = unused();
  if (left.empty()) return;
  std::string list;
  for (size_t i = 0; i < std::min<size_t>(left.size(), 5); ++i) list += (i ? ", " : "") + quote(left[i]);
  throw WeightError("weights: the model has no use for " + std::to_string(left.size()) + " of " +
                    std::to_string(size()) + " tensors: " + list + (left.size() > 5 ? ", ..." : ""));
}

void WeightStore::check_finite() const {
  for (const auto& [name, slot] : slots_) {
    for_chunks(*slot.file, *slot.entry,
               [&, &n = name, &s = slot](const std::byte* bytes, int64_t begin, int64_t count) {
                 const int64_t at = first_non_finite(bytes, s.entry->dtype, count);
                 if (at >= 0)
                   throw WeightError(s.file->path() + ": tensor " + quote(n) + " " + shape_string(s.entry->shape) +
                                     ": element " + std::to_string(begin + at) + " is not finite");
               });
  }
}

}  // namespace wam
