#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wam {

/// Text of unknown origin as a message may show it: in single quotes, control characters escaped, long text cut.
std::string quote(std::string_view text);

/// Letters to insert, delete or replace to turn `a` into `b`; `limit` when it takes that many or more.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit = SIZE_MAX);

/// The candidate most like `wanted`, for "did you mean"; empty when every one differs in more than half.
template <class Range>
std::string nearest(std::string_view wanted, const Range& candidates) {
  constexpr size_t kLongest = 512;  // the distance costs the square of the length
  std::string best;
  if (wanted.size() > kLongest) return best;
  size_t least = wanted.size() / 2 + 2;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(wanted, candidate, least);
    if (distance < least) least = distance, best = candidate;
  }
  return best;
}

}  // namespace wam
