// The weight file reader against good files and against every malformed one we could think of.
#include <random>

#include "check.h"
#include "io/convert.h"
#include "io/safetensors.h"
#include "safetensors_files.h"
#include "wamcore/error.h"

using namespace wam;
using namespace files;

namespace {

const TempFolder folder;

// What opening these bytes as a file says: "" when it works.
std::string complaint(const std::string& bytes) {
  try {
    SafetensorsFile file(write(folder / "case.safetensors", bytes));
    return "";
  } catch (const WeightError& e) {
    return e.what();
  }
}
bool complains(const std::string& bytes, const std::string& about) {
  const std::string text = complaint(bytes);
  const bool found = !text.empty() && text.find(about) != std::string::npos;
  if (!found) check::fail("complaint", 0, "wanted '" + about + "', got '" + text + "'");
  return found;
}
// One f32 tensor "a" whose header fields are given as JSON.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets, size_t data) {
  return raw_file("{\"a\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}",
                  std::string(data, '\0'));
}

}  // namespace

TEST(a_good_file_reads_back) {
  const std::vector<NamedTensor> tensors = {
      f32("b.weight", {2, 3}, {1, 2, 3, 4, 5, 6}),    {"a", "BF16", {2}, bytes_of<uint16_t>({0x3f80, 0xc000})},
      {"scalar", "F64", {}, bytes_of<double>({0.5})}, {"empty", "F32", {0, 7}, ""},
      {"ids", "I64", {1}, bytes_of<int64_t>({-3})},   {"mask", "BOOL", {3}, std::string("\1\0\1", 3)}};
  for (size_t padding = 0; padding < 9; ++padding) {  // every alignment of the data
    const SafetensorsFile file(write(folder / "good.safetensors", tensor_file(tensors, padding)));
    CHECK(file.entries().size() == 6 && file.entries()[0].name == "a");
    const TensorEntry& b = *file.find("b.weight");
    CHECK(b.dtype == DType::f32 && (b.shape == Shape{2, 3}) && b.bytes == 24);
    float values[2];
    file.read(b, 8, values, 8);
    CHECK(values[0] == 3 && values[1] == 4);
    CHECK(std::memcmp(file.view(b).data, tensors[0].bytes.data(), 24) == 0 && file.view(b).nbytes() == 24);
    CHECK(file.find("scalar")->shape.empty() && file.find("empty")->bytes == 0 && !file.find("c"));
    CHECK_THROWS(file.read(b, 20, values, 8), WeightError, "wanted bytes 20 to 28 of 24");
    CHECK_THROWS(file.read(b, UINT64_MAX, values, 8), WeightError, "of 24");
  }
}

TEST(metadata_is_strings_only) {
  const SafetensorsFile file(write(folder / "meta.safetensors", raw_file(R"({"__metadata__":{"format":"pt"}})", "")));
  CHECK(file.metadata().at("format") == "pt" && file.entries().empty());
  CHECK(complains(raw_file(R"({"__metadata__":{"n":1}})", ""), "wanted string, got integer"));
  CHECK(complains(raw_file(R"({"__metadata__":["x"]})", ""), "wanted object, got array"));
  CHECK(complains(raw_file(R"({"__metadata__":{"k":"1","k":"2"}})", ""), "twice"));
}

TEST(headers_that_lie_about_size_are_refused) {
  CHECK(complains("", "wanted a header size in 8 bytes, the file has 0"));
  CHECK(complains("\1\2\3", "the file has 3"));
  CHECK(complains(size_prefix(0), "does not start with '{'"));
  CHECK(complains(size_prefix(100) + "{}", "truncated: the header ends at byte 108, the file at 10"));
  CHECK(complains(size_prefix(uint64_t{16} << 20) + "{}", "truncated"));
  CHECK(complains(size_prefix((uint64_t{16} << 20) + 1) + "{}", "header claims 16777217 bytes"));
  CHECK(complains(size_prefix(UINT64_MAX) + "{}", "header claims 18446744073709551615 bytes"));
  CHECK(complains(size_prefix(UINT64_MAX - 7) + "{}", "header claims"));
}

TEST(headers_that_are_not_an_object_are_refused) {
  CHECK(complains(raw_file(" {}", ""), "does not start with '{'"));
  CHECK(complains(raw_file("[]", ""), "does not start with '{'"));
  CHECK(complains(raw_file("{}\n", ""), "does not end with '}' and spaces"));
  CHECK(complains(raw_file("{}x", ""), "does not end with '}'"));
  CHECK(complains(raw_file("{}}", ""), "text after the end"));
  CHECK(complains(raw_file("{\"a\":}", ""), "wanted a value"));
  CHECK(complains(raw_file("{\"\xff\":{}}", ""), "not UTF-8"));
  CHECK(complains(raw_file("{" + std::string(99, '{') + "}", ""), "wanted a key"));
  CHECK(complains(raw_file("{\"a\":[[[[1]]]]}", ""), "levels of nesting"));
  CHECK(complaint(raw_file("{}   ", "")).empty());
}

TEST(duplicate_keys_are_refused) {
  const NamedTensor a = f32("a", {1}, {1});
  CHECK(complains(raw_file("{" + header_entry(a, 0) + "," + header_entry(a, 4) + "}", std::string(8, '\0')),
                  "key 'a' twice"));
  CHECK(complains(raw_file("{" + header_entry(a, 0) + "," + header_entry(a, 0) + "}", std::string(4, '\0')), "twice"));
  CHECK(complains(raw_file(R"({"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", "1234"),
                  "'dtype' twice"));
}

TEST(tensors_must_tile_the_data) {
  const NamedTensor a = f32("a", {1}, {1}), b = f32("b", {1}, {2});
  const auto two = [&](size_t at_a, size_t at_b, size_t data) {
    return raw_file("{" + header_entry(a, at_a) + "," + header_entry(b, at_b) + "}", std::string(data, '\0'));
  };
  CHECK(complaint(two(0, 4, 8)).empty() && complaint(two(4, 0, 8)).empty());
  CHECK(complains(two(0, 8, 12), "tensor 'b' begins at byte 8 of the data, leaving a hole after byte 4"));
  CHECK(complains(two(4, 8, 12), "leaving a hole after byte 0"));
  CHECK(complains(two(0, 2, 6), "overlapping what ends at byte 4"));
  CHECK(complains(two(0, 0, 4), "overlapping"));
  CHECK(complains(two(0, 4, 9), "1 bytes at the end belong to no tensor"));
  CHECK(complains(two(0, 4, 7), "are not inside the 7 bytes of data"));
  CHECK(complains(raw_file("{}", "x"), "1 bytes at the end"));
  // an empty tensor in the middle of another one is an overlap too
  const NamedTensor empty = f32("e", {0}, {});
  CHECK(complains(raw_file("{" + header_entry(a, 0) + "," + header_entry(empty, 2) + "}", std::string(4, '\0')),
                  "overlapping"));
}

TEST(sizes_must_follow_from_dtype_and_shape) {
  CHECK(complaint(one("\"F32\"", "[2]", "[0,8]", 8)).empty());
  CHECK(complains(one("\"F32\"", "[2]", "[0,7]", 7), "f32 [2] takes 8 bytes, got 7"));
  CHECK(complains(one("\"F32\"", "[3]", "[0,8]", 8), "takes 12 bytes, got 8"));
  CHECK(complains(one("\"F32\"", "[2]", "[8,0]", 8), "bytes 8 to 0"));
  CHECK(complains(one("\"F32\"", "[2]", "[-8,0]", 8), "bytes -8 to 0"));
  CHECK(complains(one("\"F32\"", "[2]", "[0,8,8]", 8), "wanted 2 elements, got 3"));
  CHECK(complains(one("\"F32\"", "[2]", "[0,8.0]", 8), "wanted integer, got number"));
  CHECK(complains(one("\"F32\"", "[2]", "[0,18446744073709551616]", 8), "wanted integer, got number"));
  CHECK(complains(one("\"F32\"", "[-1,-2]", "[0,8]", 8), "wanted an integer from 0, got -1"));
  CHECK(complains(one("\"F32\"", "[2.0]", "[0,8]", 8), "wanted integer, got number"));
  CHECK(complains(one("\"F32\"", "2", "[0,8]", 8), "wanted array, got integer"));
  CHECK(complains(one("\"F32\"", "[4611686018427387906]", "[0,8]", 8), "more bytes than"));  // 4 n wraps to 8
  CHECK(complains(one("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0), "more elements than"));
  CHECK(complains(one("\"F32\"", "[0,4294967296,4294967296]", "[0,0]", 0), "more elements than"));
}

TEST(element_types_and_fields_are_those_we_know) {
  for (const char* dtype : {"F8_E4M3", "F4", "U16", "U32", "U64", "C64", "f32", "", "O"})
    CHECK(complains(one("\"" + std::string(dtype) + "\"", "[2]", "[0,8]", 8), "is not supported"));
  CHECK(complains(one("\"F8_E5M2\"", "[8]", "[0,8]", 8), "'a'.dtype: element type 'F8_E5M2'"));
  CHECK(complains(one("4", "[2]", "[0,8]", 8), "wanted string, got integer"));
  CHECK(complains(raw_file(R"({"a":{"dtype":"F32","shape":[1]}})", "1234"), "missing field 'data_offsets'"));
  CHECK(complains(raw_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", "1234"),
                  "unknown field 'x'"));
  CHECK(complains(raw_file(R"({"a":7})", ""), "wanted object, got integer"));
  CHECK(complains(raw_file("{\"\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", ""), "tensor name ''"));
  CHECK(complains(raw_file("{\"a\\n\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", ""), "'a\\x0a'"));
}

TEST(too_many_tensors_are_refused) {
  std::string header = "{";
  for (size_t i = 0; i <= SafetensorsFile::kMaxTensors; ++i)
    header += (i ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK(complains(raw_file(header + "}", ""), "wanted at most 65536 tensors, got 65537"));
}

TEST(files_that_are_not_files_are_refused) {
  CHECK_THROWS(SafetensorsFile(folder / "none"), WeightError, "cannot open");
  CHECK_THROWS(SafetensorsFile(folder.path().string()), WeightError, "not a regular file");
  CHECK_THROWS(SafetensorsFile("/dev/zero"), WeightError, "not a regular file");
}

TEST(every_truncation_is_refused) {
  const std::string good = tensor_file({f32("a", {3}, {1, 2, 3}), {"b", "U8", {5}, "12345"}}, 3);
  for (size_t n = 0; n < good.size(); ++n) CHECK(!complaint(good.substr(0, n)).empty());
  CHECK(complaint(good).empty());
}

TEST(random_damage_is_refused_or_harmless) {
  std::mt19937 rng(std::random_device{}());
  const std::string good = tensor_file({f32("layer.0.weight", {2, 2}, {1, 2, 3, 4}),
                                        {"layer.0.bias", "BF16", {3}, "abcdef"},
                                        {"e", "I8", {0, 4}, ""},
                                        {"ids", "I32", {1}, "wxyz"}});
  const size_t header_end = good.size() - 26;
  int opened = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = good;
    for (int flips = 1 + int(rng() % 3); flips > 0; --flips) bytes[rng() % header_end] ^= char(1 << rng() % 8);
    if (rng() % 8 == 0) bytes.resize(rng() % bytes.size());
    try {
      const SafetensorsFile file(write(folder / "fuzz.safetensors", bytes));
      uint64_t total = 0;
      for (const TensorEntry& entry : file.entries()) {  // whatever was accepted can be read in full
        std::vector<char> data(entry.bytes);
        file.read(entry, 0, data.data(), data.size());
        CHECK(file.view(entry).nbytes() == entry.bytes && entry.offset + entry.bytes <= file.size());
        first_non_finite(file.view(entry).data, entry.dtype, file.view(entry).numel());
        total += entry.bytes;
      }
      CHECK(total <= bytes.size());
      ++opened;
    } catch (const WeightError&) {
    }
  }
  CHECK(opened < 4000);
}

TEST(a_file_that_shrinks_or_changes_while_open_is_an_error_not_a_crash) {
  // above kPrivateBytes, so that the pages are mapped; the data is a hole in the file and costs no disk
  const int64_t count = int64_t(SafetensorsFile::kPrivateBytes) + 4096;
  const std::string path = folder / "large.safetensors";
  const std::string header = "{" + header_entry({"a", "U8", {count}, ""}, 0) + "}";
  const auto make = [&] {
    const std::string text = R"({"a":{"dtype":"U8","shape":[)" + std::to_string(count) + R"(],"data_offsets":[0,)" +
                             std::to_string(count) + "]}}";
    write(path, raw_file(text, ""));
    std::filesystem::resize_file(path, 8 + text.size() + size_t(count));
  };
  make();
  const SafetensorsFile file(path);
  const TensorEntry& a = *file.find("a");
  char byte = 1;
  file.read(a, a.bytes - 1, &byte, 1);
  CHECK(byte == 0 && file.view(a).as<uint8_t>()[a.bytes - 1] == 0);
  std::filesystem::resize_file(path, 4096);
  CHECK_THROWS(file.read(a, a.bytes - 1, &byte, 1), WeightError, "the file ends at");
  CHECK_THROWS(file.read(a, 0, &byte, 1), WeightError, "changed while open");
  CHECK_THROWS(file.view(a), WeightError, "changed while open");

  make();
  const SafetensorsFile again(path);
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  CHECK_THROWS(again.read(*again.find("a"), 0, &byte, 1), WeightError, "it was written to");

  // a small file is held in memory: what happens to it on disk does not matter
  const SafetensorsFile small(write(folder / "small.safetensors", tensor_file({f32("a", {1}, {7})})));
  std::filesystem::resize_file(folder / "small.safetensors", 0);
  float value = 0;
  small.read(*small.find("a"), 0, &value, 4);
  CHECK(value == 7);
}

TEST(halves_convert_exactly) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float f = to_float(Float16{uint16_t(bits)});
    const int exponent = (bits >> 10) & 31;
    const double fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) {
      CHECK(fraction == 0 ? std::isinf(f) && std::signbit(f) == (sign < 0) : std::isnan(f));
    } else {
      CHECK(f == sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24)));
      CHECK(std::signbit(f) == (sign < 0));
    }
  }
  CHECK(to_float(BFloat16{0x3f80}) == 1.0f && to_float(BFloat16{0xc000}) == -2.0f &&
        std::isnan(to_float(BFloat16{0x7fc0})));
  const double wide[] = {0.5, 1e300, 3.4028235e38, -1e39};
  float out[4];
  CHECK(to_f32(wide, DType::f64, 1, out) && out[0] == 0.5f);
  CHECK(!to_f32(wide, DType::f64, 2, out) && to_f32(wide + 2, DType::f64, 1, out) &&
        !to_f32(wide + 3, DType::f64, 1, out));
  CHECK_THROWS(to_f32(wide, DType::i32, 1, out), ShapeError, "got i32");
}

CHECK_MAIN()
