#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/text.h"
#include "io/file.h"
#include "io/json.h"
#include "wamcore/error.h"

namespace wam::json {

class Parser {
 public:
  Parser(std::string_view text, const std::string& source, const Limits& limits)
      : text_(text), source_(source), limits_(limits) {}

  Value document() {
    if (text_.size() > limits_.bytes)
      throw ConfigError(source_ + ": wanted at most " + std::to_string(limits_.bytes) + " bytes of JSON, got " +
                        std::to_string(text_.size()));
    Value result = value(0);
    skip_space();
    if (at_ != text_.size()) fail("text after the end of the document");
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) text_[i] == '\n' ? (++line, column = 1) : ++column;
    throw ConfigError(source_ + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + what);
  }

  bool ended() const { return at_ == text_.size(); }
  char peek() const { return ended() ? '\0' : text_[at_]; }
  void skip_space() {
    while (!ended() && (peek() == ' ' || peek() == '\n' || peek() == '\t' || peek() == '\r')) ++at_;
  }
  bool take(char c) {
    if (ended() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Value value(int depth) {
    skip_space();
    if (++values_ > limits_.values) fail("more than " + std::to_string(limits_.values) + " values");
    if (ended()) fail("the document ends where a value is wanted");
    const char c = peek();
    if (c == '{' || c == '[') {
      if (depth == limits_.depth) fail("more than " + std::to_string(limits_.depth) + " levels of nesting");
      return c == '{' ? Value(object(depth + 1)) : Value(array(depth + 1));
    }
    if (c == '"') return Value(string());
    if (c == '-' || (c >= '0' && c <= '9')) return number();
    if (take_word("true")) return Value(true);
    if (take_word("false")) return Value(false);
    if (take_word("null")) return Value(nullptr);
    fail("wanted a value, got " + character());
  }

  std::string character() const {
    if (ended()) return "the end of the document";
    const auto c = static_cast<unsigned char>(peek());
    if (c >= 0x20 && c < 0x7f) return std::string("'") + peek() + "'";
    constexpr char kHex[] = "0123456789abcdef";
    return std::string("byte 0x") + kHex[c >> 4] + kHex[c & 15];
  }

  Object object(int depth) {
    Object result;
    ++at_;
    skip_space();
    if (take('}')) return result;
    do {
      skip_space();
      if (peek() != '"') fail("wanted a key in double quotes, got " + character());
      std::string key = string();
      skip_space();
      if (!take(':')) fail("wanted ':' after key " + quote(key) + ", got " + character());
      result.members_.push_back({std::move(key), value(depth)});
      skip_space();
    } while (take(','));
    if (!take('}')) fail("wanted ',' or '}', got " + character());
    index(result);
    return result;
  }

  void index(Object& object) const {
    const auto& members = object.members_;
    object.by_key_.resize(members.size());
    std::iota(object.by_key_.begin(), object.by_key_.end(), 0u);
    std::sort(object.by_key_.begin(), object.by_key_.end(),
              [&](uint32_t a, uint32_t b) { return members[a].key < members[b].key; });
    for (size_t i = 1; i < members.size(); ++i)
      if (members[object.by_key_[i - 1]].key == members[object.by_key_[i]].key)
        fail("the object that ends here has key " + quote(members[object.by_key_[i]].key) + " twice");
  }

  Array array(int depth) {
    Array result;
    ++at_;
    skip_space();
    if (take(']')) return result;
    do {
      result.push_back(value(depth));
      skip_space();
    } while (take(','));
    if (!take(']')) fail("wanted ',' or ']', got " + character());
    return result;
  }

  void digits(const char* where) {
    if (peek() < '0' || peek() > '9') fail(std::string("wanted a digit ") + where + ", got " + character());
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  Value number() {
    const size_t begin = at_;
    bool whole = true;
    take('-');
    if (!take('0')) digits("in a number");
    if (peek() >= '0' && peek() <= '9') fail("a number with a leading zero");
    if (take('.')) whole = false, digits("after the decimal point");
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      digits("in the exponent");
    }
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    int64_t integer = 0;
    if (whole && std::from_chars(first, last, integer).ec == std::errc{}) return Value(integer);
    double real = 0;
    if (std::from_chars(first, last, real).ec != std::errc{}) fail("a number that does not fit a double");
    return Value(real);
  }

  std::string string() {
    std::string result;
    ++at_;
    for (;;) {
      if (ended()) fail("the document ends inside a string");
      const auto c = static_cast<unsigned char>(peek());
      if (c == '"') return ++at_, result;
      if (c < 0x20) fail("a control character inside a string: " + character());
      if (c == '\\') {
        ++at_;
        escape(result);
      } else if (c < 0x80) {
        result += peek();
        ++at_;
      } else {
        utf8(result);
      }
    }
  }

  // Copies one sequence of two to four bytes; overlong forms, surrogates and what lies beyond U+10FFFF are refused.
  void utf8(std::string& out) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(at_ + i < text_.size() ? text_[at_ + i] : 0); };
    const unsigned char lead = byte(0);
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    bool good = lead >= 0xc2 && lead <= 0xf4;
    for (size_t i = 1; i < length; ++i) good &= (byte(i) & 0xc0) == 0x80;
    good &= !(lead == 0xe0 && byte(1) < 0xa0) && !(lead == 0xed && byte(1) > 0x9f);
    good &= !(lead == 0xf0 && byte(1) < 0x90) && !(lead == 0xf4 && byte(1) > 0x8f);
    if (!good) fail("a string that is not UTF-8: " + character());
    out.append(text_.substr(at_, length));
    at_ += length;
  }

  uint32_t hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek(), lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        code = code * 16 + static_cast<uint32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        code = code * 16 + static_cast<uint32_t>(lower - 'a' + 10);
      } else {
        fail("wanted four hexadecimal digits after \\u, got " + character());
      }
    }
    return code;
  }

  void escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const size_t simple = ended() ? std::string_view::npos : kNames.find(peek());
    if (simple != std::string_view::npos) {
      out += kValues[simple];
      ++at_;
      return;
    }
    if (!take('u')) fail("an unknown escape: " + character());
    uint32_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00) {
      const uint32_t low = take('\\') && take('u') ? hex4() : 0;
      if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      fail("half of a surrogate pair");
    }
    append_utf8(out, code);
  }

  static void append_utf8(std::string& out, uint32_t code) {
    const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
    const auto tail = [&](int shift) { put(0x80 | ((code >> shift) & 0x3f)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | (code >> 6)), tail(0);
    } else if (code < 0x10000) {
      put(0xe0 | (code >> 12)), tail(6), tail(0);
    } else {
      put(0xf0 | (code >> 18)), tail(12), tail(6), tail(0);
    }
  }

  const std::string_view text_;
  const std::string& source_;
  const Limits& limits_;
  size_t at_ = 0, values_ = 0;
};

Value parse(std::string_view text, const std::string& source, const Limits& limits) {
  return Parser(text, source, limits).document();
}

Value read(const std::string& path, const Limits& limits) { return parse(read_text(path, limits.bytes), path, limits); }

}  // namespace wam::json
