// Checkpoints: one file, shards with an index, several stores under prefixes; every name accounted for both ways.
#include <limits>
#include <random>

#include "check.h"
#include "io/weight_store.h"
#include "safetensors_files.h"
#include "wamcore/error.h"

using namespace wam;
using namespace files;

namespace {

std::string index_json(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string text = R"({"metadata":{"total_size":12},"weight_map":{)";
  for (size_t i = 0; i < map.size(); ++i) text += (i ? ",\"" : "\"") + map[i].first + "\":\"" + map[i].second + "\"";
  return text + "}}";
}
const std::string kIndex = "model.safetensors.index.json";

// Two shards with tensors a, b and c.
struct Sharded {
  TempFolder folder;
  Sharded() {
    write(folder / "s1.safetensors", tensor_file({f32("a", {1}, {1}), f32("b", {2}, {2, 3})}));
    write(folder / "s2.safetensors", tensor_file({f32("c", {1}, {4})}));
    index({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}});
  }
  void index(const std::vector<std::pair<std::string, std::string>>& map) { write(folder / kIndex, index_json(map)); }
  WeightStore open() const { return WeightStore::open(folder.path().string()); }
};

}  // namespace

TEST(a_single_file_by_folder_and_by_name) {
  const TempFolder folder;
  write(folder / "model.safetensors", tensor_file({f32("w", {2, 1}, {5, 6})}, 1));
  for (const std::string& path : {folder.path().string(), folder / "model.safetensors"}) {
    WeightStore store = WeightStore::open(path);
    CHECK(store.size() == 1 && store.contains("w") && !store.contains("v") && store.names()[0] == "w");
    const Tensor w = store.f32("w", {2, 1});
    CHECK(w.data<float>()[0] == 5 && w.data<float>()[1] == 6 && reinterpret_cast<uintptr_t>(w.raw()) % 64 == 0);
  }
  CHECK_THROWS(WeightStore::open(folder / "nothing"), WeightError, "cannot open");
  CHECK_THROWS(WeightStore::open(TempFolder().path().string()), WeightError, "got neither");
  write(folder / kIndex, index_json({{"w", "model.safetensors"}}));
  CHECK_THROWS(WeightStore::open(folder.path().string()), WeightError, "got both");
  CHECK(WeightStore::open(folder / kIndex).contains("w"));
}

TEST(shards_are_joined) {
  WeightStore store = Sharded().open();  // the folder may go: small files are in memory
  CHECK((store.names() == std::vector<std::string>{"a", "b", "c"}));
  CHECK(store.f32("b", {2}).data<float>()[1] == 3 && store.f32("c", {1}).data<float>()[0] == 4);
}

TEST(index_and_shards_must_agree) {
  Sharded s;
  s.index({{"a", "s1.safetensors"}, {"c", "s2.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "tensor 'b' is not in the index");
  s.index({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}, {"c", "s2.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "tensor 'b' should be in s2.safetensors, says the index");
  s.index({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}, {"d", "s2.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "tensor 'd' is not in s2.safetensors");
  s.index({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s3.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "file 's3.safetensors' is missing");
  write(s.folder / "s2.safetensors", tensor_file({f32("a", {1}, {1}), f32("c", {1}, {4})}));
  s.index({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "tensor 'a' should be in s1.safetensors");
}

TEST(a_shard_must_lie_beside_the_index) {
  Sharded s;
  for (const char* name :
       {"../x.safetensors", "sub/x.safetensors", "/etc/x.safetensors", "..safetensors", "a..b.safetensors",
        ".hidden.safetensors", "x\\\\y.safetensors", "model.bin", ".safetensors", "", "x\\n.safetensors"}) {
    s.index({{"a", name}});
    CHECK_THROWS(s.open(), WeightError, "wanted the name of a .safetensors file beside the index");
  }
}

TEST(files_of_a_checkpoint_may_be_links) {
  const Sharded s;
  const TempFolder cache;  // as Hugging Face lays it out: contents in blobs, links with names in snapshots
  const std::filesystem::path blobs = cache / "blobs", snapshot = cache / "snapshots/0123abcd";
  std::filesystem::create_directories(blobs), std::filesystem::create_directories(snapshot);
  const auto link = [&](const std::string& name, const char* blob) {
    std::filesystem::rename(s.folder / name, blobs / blob);
    std::filesystem::create_symlink(std::filesystem::path("../../blobs") / blob, snapshot / name);
  };
  link(kIndex, "aa"), link("s1.safetensors", "bb"), link("s2.safetensors", "cc");
  WeightStore store = WeightStore::open(snapshot.string());
  CHECK(store.size() == 3 && store.f32("c", {1}).data<float>()[0] == 4);
  CHECK(WeightStore::open((snapshot / kIndex).string()).contains("c"));

  std::filesystem::remove(blobs / "cc");
  CHECK_THROWS(WeightStore::open(snapshot.string()), WeightError, "'s2.safetensors' is a link to '../../blobs/cc'");
  std::filesystem::create_directory(blobs / "cc");
  CHECK_THROWS(WeightStore::open(snapshot.string()), WeightError, "not a regular file");

  const TempFolder single;
  std::filesystem::create_symlink(blobs / "bb", single / "model.safetensors");
  CHECK(WeightStore::open(single.path().string()).contains("a"));
  std::filesystem::remove(blobs / "bb");
  CHECK_THROWS(WeightStore::open(single.path().string()), WeightError, "which is missing");
}

TEST(a_bad_index_is_a_weight_error) {
  Sharded s;
  for (const char* text :
       {"", "[]", "{}", R"({"weight_map":{"a":1}})", R"({"weight_map":[]})", R"({"weight_map":{},"x":1})",
        R"({"weight_map":{"a":"s1.safetensors","a":"s2.safetensors"}})"}) {
    write(s.folder / kIndex, text);
    CHECK_THROWS(s.open(), WeightError, kIndex);
  }
  write(s.folder / "s2.safetensors", "broken");
  s.index({{"c", "s2.safetensors"}});
  CHECK_THROWS(s.open(), WeightError, "s2.safetensors: wanted a header size");
}

TEST(wrong_and_missing_tensors_are_named) {
  const TempFolder folder;
  WeightStore store = WeightStore::open(
      write(folder / "w.safetensors", tensor_file({f32("blocks.0.attn.q.weight", {2, 3}, {1, 2, 3, 4, 5, 6}),
                                                   f32("head.bias", {1}, {1}),
                                                   {"ids", "I32", {1}, "abcd"}})));
  CHECK_THROWS(store.f32("blocks.0.atn.q.weight", {2, 3}), WeightError,
               "no tensor 'blocks.0.atn.q.weight' among 3; the nearest is 'blocks.0.attn.q.weight'");
  CHECK_THROWS(store.view("zzzzzzzzzzzz"), WeightError, "no tensor 'zzzzzzzzzzzz' among 3");
  CHECK_THROWS(store.f32("blocks.0.attn.q.weight", {3, 2}), WeightError,
               "wanted floating point [3, 2], got f32 [2, 3]");
  CHECK_THROWS(store.f32("blocks.0.attn.q.weight", {6}), WeightError, "wanted floating point [6]");
  CHECK_THROWS(store.f32("ids", {1}), WeightError, "got i32 [1]");
  CHECK(store.stored("ids").data<int32_t>()[0] == 0x64636261);
}

TEST(halves_and_doubles_become_f32) {
  const TempFolder folder;
  // odd padding: every tensor is unaligned
  std::mt19937 rng(std::random_device{}());
  const int64_t n = (int64_t{1} << 18) + 1 + rng() % 100;  // more than one chunk
  std::vector<uint16_t> bf16(n);
  std::vector<double> f64(n);
  for (auto& x : bf16) x = uint16_t(rng() % 0x7f00);
  for (auto& x : f64) x = std::normal_distribution<double>()(rng);
  const std::string bytes = tensor_file({{"h", "BF16", {n}, bytes_of(bf16)},
                                         {"d", "F64", {n, 1}, bytes_of(f64)},
                                         {"f", "F16", {2}, bytes_of<uint16_t>({0x3c00, 0xc000})},
                                         {"big", "F64", {1}, bytes_of<double>({1e200})}},
                                        1 + 2 * (rng() % 4));
  WeightStore store = WeightStore::open(write(folder / "w.safetensors", bytes));
  const Tensor h = store.f32("h", {n}), d = store.f32("d", {n, 1}), f = store.f32("f", {2});
  bool equal = true;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = uint32_t(bf16[i]) << 16;
    equal &= std::memcmp(h.data<float>() + i, &bits, 4) == 0 && d.data<float>()[i] == float(f64[i]);
  }
  CHECK(equal && f.data<float>()[0] == 1 && f.data<float>()[1] == -2);
  CHECK_THROWS(store.f32("big", {1}), WeightError, "tensor 'big': a value is too large for f32");
}

TEST(tensors_nobody_read_are_known) {
  WeightStore store = Sharded().open();
  CHECK(store.unused().size() == 3);
  store.f32("a", {1});
  CHECK(store.entry("b").shape == Shape{2} && store.contains("c"));  // looking is not reading
  CHECK((store.unused() == std::vector<std::string>{"b", "c"}));
  CHECK_THROWS(store.check_all_used(), WeightError, "no use for 2 of 3 tensors: 'b', 'c'");
  store.view("b");
  store.ignore("c");
  store.check_all_used();
  CHECK_THROWS(store.ignore("nope"), WeightError, "no tensor 'nope'");
}

TEST(stores_combine_under_prefixes) {
  const TempFolder folder;
  const WeightStore encoder =
      WeightStore::open(write(folder / "enc.safetensors", tensor_file({f32("conv", {1}, {1})})));
  const WeightStore decoder =
      WeightStore::open(write(folder / "dec.safetensors", tensor_file({f32("conv", {1}, {2})})));
  WeightStore both;
  both.attach(encoder, "vae.encoder.");
  both.attach(decoder, "vae.decoder.");
  CHECK(both.f32("vae.decoder.conv", {1}).data<float>()[0] == 2);
  CHECK((both.unused() == std::vector<std::string>{"vae.encoder.conv"}));
  CHECK_THROWS(both.attach(decoder, "vae.encoder."), WeightError, "'vae.encoder.conv' is also in");
  CHECK(encoder.unused().size() == 1);
}

TEST(non_finite_weights_are_found) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const TempFolder folder;
  const auto check = [&](const NamedTensor& tensor) {
    const auto store =
        WeightStore::open(write(folder / "w.safetensors", tensor_file({f32("a", {2}, {1, -2}), tensor}, 3)));
    store.check_finite();
  };
  check({"ids", "I32", {1}, "\xff\xff\xff\xff"});
  CHECK_THROWS(check(f32("b", {3}, {1, 2, nan})), WeightError, "tensor 'b' [3]: element 2 is not finite");
  CHECK_THROWS(check(f32("b", {3}, {-inf, 2, nan})), WeightError, "element 0 is not finite");
  CHECK_THROWS(check({"b", "BF16", {1}, bytes_of<uint16_t>({0x7f80})}), WeightError, "not finite");
  CHECK_THROWS(check({"b", "F16", {1}, bytes_of<uint16_t>({0xfc01})}), WeightError, "not finite");
  CHECK_THROWS(check({"b", "F64", {1}, bytes_of<double>({nan})}), WeightError, "not finite");
  std::vector<float> many(400000, 1.0f);
  many[399999] = inf;
  CHECK_THROWS(check(f32("b", {400000}, many)), WeightError, "element 399999");
}

CHECK_MAIN()
