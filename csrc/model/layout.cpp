#include "model/layout.h"

#include <cmath>

#include "wamcore/error.h"

namespace wam {

int64_t Layout::tokens() const { return begin(segments.size()); }

int64_t Layout::begin(size_t segment) const {
  int64_t row = 0;
  for (size_t i = 0; i < segment; ++i) row += segments[i].tokens;
  return row;
}

namespace {

bool same_keys(const Layout& layout, size_t a, size_t b) {
  for (size_t key = 0; key <= layout.segments.size(); ++key)
    if (layout.attend.looks(a, key) != layout.attend.looks(b, key)) return false;
  return true;
}

void check(const Layout& layout) {
  int last = -1;
  for (const Segment& s : layout.segments) {
    const std::string who = "layout '" + layout.name + "', segment '" + s.name + "': ";
    if (s.tokens <= 0) throw ShapeError(who + "wanted tokens, got " + std::to_string(s.tokens));
    if (static_cast<int64_t>(s.time_row.size()) != s.tokens)
      throw ShapeError(who + "wanted a time row for each of " + std::to_string(s.tokens) + " tokens, got " +
                       std::to_string(s.time_row.size()));
    for (const int32_t row : s.time_row)
      if (row < 0 || row >= layout.time_rows) throw ShapeError(who + "time row out of range");
    if (s.entry == Entry::patch && s.grid.tokens() != s.tokens) throw ShapeError(who + "grid and tokens disagree");
    if (s.expert < last) throw ShapeError(who + "segments of one expert must lie together, experts in order");
    last = s.expert;
  }
}

}  // namespace

std::vector<QuerySpan> compile_attention(const Layout& layout) {
  check(layout);
  std::vector<QuerySpan> spans;
  const size_t n = layout.segments.size();
  for (size_t query = 0; query < n; ++query) {
    if (query > 0 && same_keys(layout, query, query - 1)) {
      spans.back().rows += layout.segments[query].tokens;
      continue;
    }
    QuerySpan span{layout.begin(query), layout.segments[query].tokens, {}};
    bool memory = layout.attend.looks_at_memory(query);
    for (size_t key = 0; key < n; ++key)
      if (layout.attend.looks(query, key) && layout.segments[key].store) memory = true;
    if (memory) span.keys.push_back({.memory = true});
    for (size_t key = 0; key < n; ++key) {
      if (!layout.attend.looks(query, key) || layout.segments[key].store) continue;
      const int64_t begin = layout.begin(key), rows = layout.segments[key].tokens;
      KeyRange* last = span.keys.empty() ? nullptr : &span.keys.back();
      if (last && !last->memory && last->begin + last->rows == begin) {
        last->rows += rows;
      } else {
        span.keys.push_back({.begin = begin, .rows = rows});
      }
    }
    if (span.keys.empty())
      throw ShapeError("layout '" + layout.name + "': segment '" + layout.segments[query].name + "' sees nothing");
    spans.push_back(std::move(span));
  }
  return spans;
}

RopeTable rope_table(const Layout& layout, int64_t head_dim) {
  RopeTable table;
  table.cos.reserve(static_cast<size_t>(layout.tokens() * head_dim / 2));
  table.sin.reserve(table.cos.capacity());
  for (const Segment& s : layout.segments) {
    int64_t sum = 0;
    for (const int64_t part : s.coords.split) sum += part;
    const size_t axes = s.coords.split.size();
    if (sum != head_dim || s.coords.position.size() != static_cast<size_t>(s.tokens) * axes)
      throw ShapeError("layout '" + layout.name + "', segment '" + s.name + "': coordinates do not fill head_dim " +
                       std::to_string(head_dim));
    for (int64_t token = 0; token < s.tokens; ++token)
      for (size_t axis = 0; axis < axes; ++axis)
        for (int64_t i = 0; i < s.coords.split[axis]; i += 2) {
          const double part = static_cast<double>(s.coords.split[axis]);
          const double angle = s.coords.position[static_cast<size_t>(token) * axes + axis] *
                               std::pow(10000.0, -static_cast<double>(i) / part);
          table.cos.push_back(static_cast<float>(std::cos(angle)));
          table.sin.push_back(static_cast<float>(std::sin(angle)));
        }
  }
  return table;
}

}  // namespace wam
