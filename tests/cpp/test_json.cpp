// The JSON reader accepts RFC 8259 and nothing else, says where it stumbled, and accounts for every field.
#include "check.h"

#include <random>

#include "core/text.h"
#include "io/json.h"
#include "safetensors_files.h"
#include "wamcore/error.h"

using namespace wam;
using json::Node;
using json::parse;

namespace {

json::Value document;
Node root(const std::string& text) {
  document = parse(text, "test");
  return Node(document, "config");
}

}  // namespace

TEST(values_of_every_kind) {
  const Node node =
      root(R"( {"a": [null, true, false], "i": -9223372036854775808, "d": 0.1, "e": -2E+3, "s": "x", "o": {}} )");
  auto f = node.fields();
  CHECK(f.need("a").array(3)[0].is_null() && f.need("a").array()[1].boolean() && !f.need("a").array()[2].boolean());
  CHECK(f.need("i").integer() == INT64_MIN);
  CHECK(f.need("d").number() == 0.1 && f.need("e").number() == -2000 && f.need("e").is("number"));
  CHECK(f.need("s").string() == "x" && f.need("o").object().members().empty());
  f.finish();
  CHECK(node.object().members()[0].key == "a" && node.object().members()[5].key == "o");  // order of the file
  CHECK(root("7").integer() == 7 && root("\"\"").string().empty() && root("[]").array().empty());
}

TEST(integers_and_doubles_stay_apart) {
  CHECK(root("9007199254740993").integer() == 9007199254740993);  // a double would lose the last digit
  CHECK(root("9223372036854775807").integer() == INT64_MAX);
  CHECK(root("1").number() == 1.0);
  CHECK_THROWS(root("1.0").integer(), ConfigError, "config: wanted integer, got number");
  CHECK_THROWS(root("1e2").integer(), ConfigError, "got number");
  CHECK_THROWS(root("9223372036854775808").integer(), ConfigError, "got number");
  CHECK(root("9223372036854775808").number() == 0x1p63);
  CHECK(root("5e-324").number() == 5e-324 && root("1.7976931348623157e308").number() == 1.7976931348623157e308);
  CHECK_THROWS(root("1e309"), ConfigError, "does not fit a double");
  CHECK_THROWS(root("-1e-400"), ConfigError, "does not fit a double");
}

TEST(strings_are_unescaped) {
  CHECK(root(R"("\"\\\/\b\f\n\r\t")").string() == "\"\\/\b\f\n\r\t");
  CHECK(root(R"("\u0041\u00e9\u20AC\ud83e\udd16")").string() == "A\u00e9\u20ac\U0001F916");
  CHECK(root("\"\u00e9\u20ac\U0001F916\U0010FFFF\"").string() == "\u00e9\u20ac\U0001F916\U0010FFFF");
  CHECK(root(R"("\u0000")").string() == std::string(1, '\0'));
}

TEST(what_is_not_json_is_refused) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "1:1: the document ends"},
      {" ", "the document ends"},
      {"{\"a\":1,}", "1:8: wanted a key"},
      {"[1,]", "1:4: wanted a value, got ']'"},
      {"[1 2]", "wanted ',' or ']', got '2'"},
      {"{\"a\" 1}", "wanted ':' after key 'a'"},
      {"{a:1}", "double quotes"},
      {"{'a':1}", "double quotes"},
      {"{\"a\":1", "wanted ',' or '}', got the end"},
      {"[1", "got the end of the document"},
      {"\"a", "ends inside a string"},
      {"\"a\\", "unknown escape"},
      {"// x\n1", "wanted a value, got '/'"},
      {"1 // x", "text after the end"},
      {"{} {}", "text after the end"},
      {"NaN", "wanted a value"},
      {"Infinity", "wanted a value"},
      {"-Infinity", "wanted a digit"},
      {"nul", "wanted a value"},
      {"truest", "text after the end"},
      {"True", "wanted a value"},
      {"01", "leading zero"},
      {"-01", "leading zero"},
      {"+1", "wanted a value"},
      {".5", "wanted a value"},
      {"5.", "after the decimal point"},
      {"1e", "in the exponent"},
      {"0x10", "text after the end"},
      {"\"\\x41\"", "unknown escape"},
      {"\"\\u12g4\"", "hexadecimal"},
      {"\"\\ud800\"", "surrogate"},
      {"\"\\ud800\\u0041\"", "surrogate"},
      {"\"\\udc00\"", "surrogate"},
      {"\"\t\"", "control character"},
      {"[1,\n 2,\n  x]", "test:3:3: wanted a value, got 'x'"},
      {"{\"a\":1,\"b\":{},\"a\":1}", "has key 'a' twice"},
      {"[{\"k\":0,\"\\u006b\":0}]", "has key 'k' twice"},
      {"\xEF\xBB\xBF{}", "byte 0xef"},
  };
  for (const auto& [text, message] : cases) CHECK_THROWS(parse(text, "test"), ConfigError, message);
}

TEST(text_that_is_not_utf8_is_refused) {
  // lone tail, overlong forms, surrogate, beyond U+10FFFF, truncated sequences, invalid lead
  for (const char* bytes :
       {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3",
        "\xe2\x82", "\xf0\x9f\xa4", "\xe2\x28\xa1", "\xff", "\xf8\x88\x80\x80\x80"})
    CHECK_THROWS(parse("\"" + std::string(bytes) + "\"", "test"), ConfigError, "not UTF-8");
  CHECK_THROWS(parse("{\"\xff\":1}", "test"), ConfigError, "not UTF-8");
  CHECK_THROWS(parse("\"\xf0\x9f", "test"), ConfigError, "not UTF-8");
}

TEST(depth_size_and_values_are_capped) {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(parse(nested(64), "test").get<json::Array>() != nullptr);
  CHECK_THROWS(parse(nested(65), "test"), ConfigError, "more than 64 levels");
  CHECK_THROWS(parse(std::string(1000000, '['), "test"), ConfigError, "levels");
  CHECK_THROWS(parse("[[1]]", "test", {.depth = 1}), ConfigError, "more than 1 levels");
  CHECK_THROWS(parse("[1,2]", "test", {.bytes = 4}), ConfigError, "wanted at most 4 bytes of JSON, got 5");
  CHECK_THROWS(parse("[1,2]", "test", {.values = 2}), ConfigError, "more than 2 values");
  CHECK(parse("[1,2]", "test", {.bytes = 5, .values = 3}).get<json::Array>()->size() == 2);
}

TEST(complaints_name_the_path) {
  const Node node = root(R"({"action_head_cfg": {"config": {"dim": "x", "list": [1, "y"], "mode": "both", "n": 7}}})");
  auto config = node.fields().need("action_head_cfg").fields().need("config").fields();
  CHECK_THROWS(config.need("dim").integer(), ConfigError,
               "config.action_head_cfg.config.dim: wanted integer, got string");
  CHECK_THROWS(config.need("list").integers(), ConfigError,
               "config.action_head_cfg.config.list[1]: wanted integer, got string");
  CHECK_THROWS(config.need("list").numbers(3), ConfigError, "wanted 3 elements, got 2");
  CHECK_THROWS(config.need("list").fields(), ConfigError, "wanted object, got array");
  CHECK_THROWS(config.need("n").array(), ConfigError, "wanted array, got integer");
  CHECK_THROWS(config.need("n").boolean(), ConfigError, "wanted boolean, got integer");
  CHECK_THROWS(config.need("dim").number(), ConfigError, "wanted number, got string");
  CHECK_THROWS(config.need("mode").choice({"video", "action"}), ConfigError,
               "wanted one of 'video', 'action', got 'both'");
  CHECK(config.need("mode").choice({"video", "both"}) == 1);
  CHECK_THROWS(config.need("n").integer(1, 6), ConfigError, "wanted an integer from 1 up to 6, got 7");
  CHECK_THROWS(config.need("n").integer(8), ConfigError, "from 8, got 7");
  CHECK(config.need("n").integer(7, 7) == 7);
}

TEST(fields_are_accounted_for) {
  const Node node = root(R"({"hidden_size": 4, "heads": 2, "comment": "x", "flag": null})");
  auto f = node.fields();
  CHECK_THROWS(f.need("hiden_size"), ConfigError, "config: missing field 'hiden_size'; the nearest is 'hidden_size'");
  CHECK_THROWS(f.need("qqqqqqqq"), ConfigError, "missing field 'qqqqqqqq'");

  auto g = node.fields();
  CHECK(g.integer("hidden_size", 1) == 4 && g.integer("layers", 3) == 3 && g.number("eps", 0.5) == 0.5);
  CHECK(g.string("name", "none") == "none" && g.boolean("causal", true));
  CHECK_THROWS(g.finish(), ConfigError, "unknown field 'heads'");
  g.need("heads");
  g.ignore({"comment"});
  CHECK_THROWS(g.finish(), ConfigError, "unknown field 'flag'");
  CHECK(g.find("flag")->is_null());  // null is there
  g.finish();

  auto typo = root(R"({"guidence": 1})").fields();
  typo.find("guidance");
  CHECK_THROWS(typo.finish(), ConfigError, "unknown field 'guidence'; did you mean 'guidance'?");
}

TEST(files_are_read_whole_or_not_at_all) {
  const files::TempFolder folder;
  CHECK(json::read(files::write(folder / "a.json", "[1]")).get<json::Array>()->size() == 1);
  CHECK_THROWS(json::read(folder / "none.json"), ConfigError, "none.json: cannot open");
  CHECK_THROWS(json::read(folder.path().string()), ConfigError, "not a regular file");
  CHECK_THROWS(json::read(files::write(folder / "big.json", std::string(101, ' ')), {.bytes = 100}), ConfigError,
               "at most 100");
  CHECK_THROWS(json::read(files::write(folder / "bad.json", "[1,\n}")), ConfigError, "bad.json:2:1");
}

TEST(random_bytes_never_do_more_than_throw) {
  std::mt19937 rng(std::random_device{}());
  const std::string good = R"({"a":[1,2.5e3,"\u00e9x\\"],"b":{"c":null,"d":[true,false,{}]},"e":"é"})";
  const std::string alphabet = "{}[]\",:\\u0189eE+-. \ntfn\x80\xc3\xff";
  int parsed = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (int edits = 1 + int(rng() % 3); edits > 0 && !text.empty(); --edits) {
      const size_t at = rng() % text.size();
      switch (rng() % 4) {
        case 0:
          text[at] = alphabet[rng() % alphabet.size()];
          break;
        case 1:
          text[at] = char(rng());
          break;
        case 2:
          text.erase(at, 1 + rng() % 5);
          break;
        default:
          text.insert(at, 1, alphabet[rng() % alphabet.size()]);
          break;
      }
    }
    try {
      parse(text, "fuzz");
      ++parsed;
    } catch (const ConfigError&) {
    }
  }
  CHECK(parsed > 0 && parsed < 20000);
}

TEST(names_are_compared_by_edits) {
  CHECK(edit_distance("kitten", "sitting") == 3 && edit_distance("", "abc") == 3 && edit_distance("abc", "abc") == 0);
  CHECK(edit_distance("abcdef", "x", 3) == 3);
  CHECK(nearest("blocks.1.q", std::vector<std::string>{"blocks.1.k.w", "block.1.q", "head"}) == "block.1.q");
  CHECK(nearest("abc", std::vector<std::string>{"xyzxyz"}).empty() &&
        nearest("abc", std::vector<std::string>{}).empty());
  CHECK(quote("a\n\x7f") == "'a\\x0a\\x7f'" && quote(std::string(500, 'x')).size() == 165);
}

CHECK_MAIN()
