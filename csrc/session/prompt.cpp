#include "session/prompt.h"

#include <cctype>
#include <cstdint>
#include <optional>
#include <string_view>

#include "wamcore/error.h"

namespace wam {

const char* const kNegativePrompt =
    "Vibrant colors, overexposed, static, blurry details, text, subtitles, style, artwork, painting, image, still, "
    "grayscale, dull, worst quality, low quality, JPEG artifacts, ugly, mutilated, extra fingers, bad hands, bad face, "
    "deformed, disfigured, mutated limbs, fused fingers, stagnant image, cluttered background, three legs, many people "
    "in "
    "the background, walking backwards.";

namespace {

constexpr size_t kMostBytes = 64 * 1024;

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}

// A quoted string's text, if that is all there is.
std::optional<std::string> quoted(std::string_view s) {
  if (s.size() < 2 || (s[0] != '\'' && s[0] != '"') || s.back() != s[0]) return {};
  const std::string_view inside = s.substr(1, s.size() - 2);
  if (inside.find_first_of(std::string{s[0], '\\', '\n'}) != std::string_view::npos) return {};
  return std::string(inside);
}

bool is_number(std::string_view s) {
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  size_t digits = 0, dots = 0;
  for (const char c : s)
    (c == '.' ? dots : digits) += c == '.' || std::isdigit(static_cast<unsigned char>(c)) ? 1 : 100;
  return digits > 0 && digits < 100 && dots <= 1 && (dots == 1 || digits == 1 || s[0] != '0');
}

// What upstream makes of an instruction that happens to be a Python literal; nothing when it is plain text. Only what
// people plausibly type is covered: strings, numbers, and lists or tuples of them.
std::optional<std::string> literal(std::string_view text) {
  const std::string_view s = trimmed(text);
  if (const auto q = quoted(s)) return q;
  if (s.size() < 3 || !((s[0] == '[' && s.back() == ']') || (s[0] == '(' && s.back() == ')'))) return {};
  std::optional<std::string> first;
  size_t elements = 0;
  for (std::string_view rest = s.substr(1, s.size() - 2); !trimmed(rest).empty(); ++elements) {
    size_t end = 0;
    for (char quote = 0; end < rest.size() && (quote || rest[end] != ','); ++end)
      if (quote ? rest[end] == quote : rest[end] == '\'' || rest[end] == '"') quote = quote ? 0 : rest[end];
    const std::string_view element = trimmed(rest.substr(0, end));
    const auto q = quoted(element);
    if (!q && !is_number(element)) return {};
    if (!first) first = q ? *q : std::string(element);
    rest.remove_prefix(end < rest.size() ? end + 1 : end);
  }
  // (text) with a single element and no comma is not a tuple.
  if (s[0] == '(' && elements == 1 && s.find(',') == std::string_view::npos &&
      !quoted(trimmed(s.substr(1, s.size() - 2))))
    return std::string(trimmed(s.substr(1, s.size() - 2)));
  return first;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

struct Entity {
  std::string_view name;
  uint32_t code;
};
constexpr Entity kEntities[] = {
    {"amp", '&'},      {"lt", '<'},       {"gt", '>'},       {"quot", '"'},     {"apos", '\''},    {"nbsp", 0xA0},
    {"copy", 0xA9},    {"reg", 0xAE},     {"deg", 0xB0},     {"times", 0xD7},   {"ndash", 0x2013}, {"mdash", 0x2014},
    {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"ldquo", 0x201C}, {"rdquo", 0x201D}, {"hellip", 0x2026}};

// One entity at text[at] == '&': its code point and length, or nothing.
std::optional<std::pair<uint32_t, size_t>> entity(std::string_view text) {
  if (text.size() > 2 && text[1] == '#') {
    const bool hex = text[2] == 'x' || text[2] == 'X';
    uint32_t code = 0;
    size_t i = hex ? 3 : 2;
    const size_t first = i;
    for (;
         i < text.size() && i < first + 8 &&
         (hex ? std::isxdigit(static_cast<unsigned char>(text[i])) : std::isdigit(static_cast<unsigned char>(text[i])));
         ++i)
      code = code * (hex ? 16 : 10) + static_cast<uint32_t>(std::isdigit(static_cast<unsigned char>(text[i]))
                                                                ? text[i] - '0'
                                                                : std::tolower(text[i]) - 'a' + 10);
    if (i == first) return {};
    if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    return std::pair{code, i + (i < text.size() && text[i] == ';' ? 1 : 0)};
  }
  for (const Entity& e : kEntities)
    if (text.substr(1, e.name.size()) == e.name) {
      const size_t end = 1 + e.name.size();
      const bool closed = end < text.size() && text[end] == ';';
      // Only the oldest names are recognised without their semicolon.
      if (closed || e.name == "amp" || e.name == "lt" || e.name == "gt" || e.name == "quot" || e.name == "nbsp")
        return std::pair{e.code, end + (closed ? 1 : 0)};
    }
  return {};
}

std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto found = text[i] == '&' ? entity(std::string_view(text).substr(i)) : std::nullopt;
    if (found) {
      append_utf8(out, found->first);
      i += found->second;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Runs of white space, the no-break space included, become one blank; none at the ends.
std::string collapsed(const std::string& text) {
  std::string out;
  bool gap = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool no_break = text.compare(i, 2, "\xC2\xA0") == 0;
    if (no_break || std::isspace(static_cast<unsigned char>(text[i]))) {
      gap = true;
      i += no_break ? 1 : 0;
      continue;
    }
    if (gap && !out.empty()) out += ' ';
    gap = false;
    out += text[i];
  }
  return out;
}

}  // namespace

std::string format_prompt(const std::string& prompt_template, const std::string& instruction) {
  if (instruction.size() > kMostBytes)
    throw InputError("format_prompt: wanted at most " + std::to_string(kMostBytes) + " bytes, got " +
                     std::to_string(instruction.size()));
  std::string text = instruction;
  for (const char* marker : {"<LAPA>", "<DREAM>", "<COTRAIN>"}) text = replaced(text, marker, "");
  text = literal(text).value_or(text);
  if (collapsed(text).empty()) throw InputError("format_prompt: the instruction is empty");
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return collapsed(unescaped(unescaped(replaced(prompt_template, "{}", text))));
}

}  // namespace wam
