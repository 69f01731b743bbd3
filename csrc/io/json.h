#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "wamcore/export.h"

namespace wam::json {

class Value;
struct Member;

/// What an input may cost at most.
struct Limits {
  size_t bytes = size_t{16} << 20;
  size_t values = size_t{1} << 22;  // memory is about 60 bytes a value
  int depth = 64;                   // arrays and objects inside each other
};

/// Object members in the order of the file; keys are unique.
class WAMCORE_API Object {
 public:
  const std::vector<Member>& members() const { return members_; }
  const Value* find(std::string_view key) const;

 private:
  friend class Parser;
  std::vector<Member> members_;
  std::vector<uint32_t> by_key_;  // indices into members_, sorted by key
};
using Array = std::vector<Value>;

/// An immutable JSON value. Integers that fit 64 bits stay integers; every other number is a double.
class WAMCORE_API Value {
 public:
  using Data = std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object>;
  Value() = default;
  explicit Value(Data value) : data(std::move(value)) {}
  /// "null", "boolean", "integer", "number", "string", "array" or "object".
  const char* kind() const;
  template <class T>
  const T* get() const {
    return std::get_if<T>(&data);
  }

  Data data = nullptr;
};
struct Member {
  std::string key;
  Value value;
};

/// Reads one JSON document, RFC 8259 and nothing more: UTF-8 without byte order mark, no comments, no trailing commas,
/// no NaN; duplicate keys and numbers that a double cannot hold are errors. Throws ConfigError "source:line:column:
/// ...".
WAMCORE_API Value parse(std::string_view text, const std::string& source, const Limits& limits = {});
/// parse() of a file.
WAMCORE_API Value read(const std::string& path, const Limits& limits = {});

class Fields;

/// A value together with the path that leads to it, which every complaint names. Valid while the document lives.
class WAMCORE_API Node {
 public:
  Node(const Value& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  const Value& value() const { return *value_; }
  bool is_null() const { return value_->get<std::nullptr_t>() != nullptr; }
  bool is(std::string_view kind) const { return value_->kind() == kind; }

  // Typed access: ConfigError "path: wanted integer, got string" when the value is something else.
  bool boolean() const;
  int64_t integer(int64_t least = INT64_MIN, int64_t most = INT64_MAX) const;
  double number() const;  // integers too
  const std::string& string() const;
  /// Index of the string among those allowed.
  size_t choice(std::initializer_list<const char*> allowed) const;
  /// Elements; with `count`, exactly that many.
  std::vector<Node> array(std::optional<size_t> count = {}) const;
  std::vector<int64_t> integers(std::optional<size_t> count = {}) const;
  std::vector<double> numbers(std::optional<size_t> count = {}) const;
  std::vector<std::string> strings(std::optional<size_t> count = {}) const;
  const Object& object() const;  // when any key will do
  Fields fields() const;         // when the keys are known

  /// Throws ConfigError "path: what".
  [[noreturn]] void fail(const std::string& what) const;

 private:
  template <class T>
  const T& expect(const char* wanted) const;

  const Value* value_;
  std::string path_;
};

/// An object whose fields are accounted for: ask for those that are known, then call finish().
class WAMCORE_API Fields {
 public:
  explicit Fields(const Node& object);

  /// A field that must be there; when it is missing, the message names the nearest one that is.
  Node need(std::string_view key);
  /// A field that may be missing. Null is not missing.
  std::optional<Node> find(std::string_view key);
  // With a default for a missing field.
  bool boolean(std::string_view key, bool missing);
  int64_t integer(std::string_view key, int64_t missing);
  double number(std::string_view key, double missing);
  std::string string(std::string_view key, std::string missing);
  /// Accepts a field that is known and deliberately not used.
  void ignore(std::initializer_list<std::string_view> keys);

  std::vector<std::string> keys() const;  // all that are in the document
  const std::string& path() const { return node_.path(); }
  [[noreturn]] void fail(const std::string& what) const { node_.fail(what); }
  /// Throws ConfigError for the first field nobody asked for, naming the nearest one that somebody did.
  void finish() const;

 private:
  Node node_;
  const Object* object_;
  std::vector<std::string> known_;
};

}  // namespace wam::json
