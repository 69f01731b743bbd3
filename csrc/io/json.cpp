#include "io/json.h"

#include <algorithm>

#include "core/text.h"
#include "wamcore/error.h"

namespace wam::json {

const Value* Object::find(std::string_view key) const {
  const auto at = std::lower_bound(by_key_.begin(), by_key_.end(), key,
                                   [&](uint32_t i, std::string_view k) { return members_[i].key < k; });
  return at != by_key_.end() && members_[*at].key == key ? &members_[*at].value : nullptr;
}

const char* Value::kind() const {
  static constexpr const char* kKinds[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  return kKinds[data.index()];
}

void Node::fail(const std::string& what) const { throw ConfigError(path_ + ": " + what); }

template <class T>
const T& Node::expect(const char* wanted) const {
  const T* data = value_->get<T>();
  if (!data) fail(std::string("wanted ") + wanted + ", got " + value_->kind());
  return *data;
}

bool Node::boolean() const { return expect<bool>("boolean"); }
const std::string& Node::string() const { return expect<std::string>("string"); }

int64_t Node::integer(int64_t least, int64_t most) const {
  const int64_t n = expect<int64_t>("integer");
  if (n < least || n > most) {
    const std::string low = least == INT64_MIN ? "" : " from " + std::to_string(least);
    const std::string high = most == INT64_MAX ? "" : " up to " + std::to_string(most);
    fail("wanted an integer" + low + high + ", got " + std::to_string(n));
  }
  return n;
}

double Node::number() const {
  if (const int64_t* n = value_->get<int64_t>()) return static_cast<double>(*n);
  return expect<double>("number");
}

size_t Node::choice(std::initializer_list<const char*> allowed) const {
  const std::string& text = string();
  std::string list;
  for (size_t i = 0; i < allowed.size(); ++i) {
    const char* option = allowed.begin()[i];
    if (text == option) return i;
    list += (list.empty() ? "'" : ", '") + std::string(option) + "'";
  }
  fail("wanted one of " + list + ", got " + quote(text));
}

std::vector<Node> Node::array(std::optional<size_t> count) const {
  const Array& elements = expect<Array>("array");
  if (count && elements.size() != *count)
    fail("wanted " + std::to_string(*count) + " elements, got " + std::to_string(elements.size()));
  std::vector<Node> nodes;
  nodes.reserve(elements.size());
  for (size_t i = 0; i < elements.size(); ++i) nodes.emplace_back(elements[i], path_ + "[" + std::to_string(i) + "]");
  return nodes;
}

std::vector<int64_t> Node::integers(std::optional<size_t> count) const {
  std::vector<int64_t> list;
  for (const Node& node : array(count)) list.push_back(node.integer());
  return list;
}

std::vector<double> Node::numbers(std::optional<size_t> count) const {
  std::vector<double> list;
  for (const Node& node : array(count)) list.push_back(node.number());
  return list;
}

std::vector<std::string> Node::strings(std::optional<size_t> count) const {
  std::vector<std::string> list;
  for (const Node& node : array(count)) list.push_back(node.string());
  return list;
}

const Object& Node::object() const { return expect<Object>("object"); }
Fields Node::fields() const { return Fields(*this); }

Fields::Fields(const Node& object) : node_(object), object_(&object.object()) {}

std::optional<Node> Fields::find(std::string_view key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.emplace_back(key);
  const Value* value = object_->find(key);
  if (!value) return std::nullopt;
  return Node(*value, node_.path() + "." + std::string(key));
}

Node Fields::need(std::string_view key) {
  if (auto node = find(key)) return *node;
  const std::string near = nearest(key, keys());
  fail("missing field " + quote(key) + (near.empty() ? "" : "; the nearest is " + quote(near)));
}

bool Fields::boolean(std::string_view key, bool missing) {
  const auto node = find(key);
  return node ? node->boolean() : missing;
}

int64_t Fields::integer(std::string_view key, int64_t missing) {
  const auto node = find(key);
  return node ? node->integer() : missing;
}

double Fields::number(std::string_view key, double missing) {
  const auto node = find(key);
  return node ? node->number() : missing;
}

std::string Fields::string(std::string_view key, std::string missing) {
  const auto node = find(key);
  return node ? node->string() : std::move(missing);
}

void Fields::ignore(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) known_.emplace_back(key);
}

std::vector<std::string> Fields::keys() const {
  std::vector<std::string> list;
  for (const Member& member : object_->members()) list.push_back(member.key);
  return list;
}

void Fields::finish() const {
  for (const Member& member : object_->members()) {
    if (std::find(known_.begin(), known_.end(), member.key) != known_.end()) continue;
    const std::string near = nearest(member.key, known_);
    fail("unknown field " + quote(member.key) + (near.empty() ? "" : "; did you mean " + quote(near) + "?"));
  }
}

}  // namespace wam::json
