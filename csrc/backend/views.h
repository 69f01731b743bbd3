#pragma once

#include <cstdint>
#include <span>

namespace wam {

/// Rows [begin, begin + rows) of a K/V array.
struct RowRange {
  int64_t begin = 0, rows = 0;
};

/// One guidance branch's memory as a program sees it: where to read, where to write.
struct MemoryView {
  std::span<float* const> k, v;  // [layers], each [capacity, heads * head_dim] as Backend::allocate_keys gives them
  int64_t capacity = 0;          // rows of each
  RowRange read[3];              // oldest first; includes the written rows where the pass stores
  int reads = 0;
  RowRange write[2];
  int writes = 0;
};

/// Cached K/V of the context groups of one guidance branch.
struct ContextView {
  struct Group {
    float* k = nullptr;  // [layers, rows, heads * head_dim] as Backend::allocate_keys gives them
    float* v = nullptr;
    int64_t rows = 0;
  };
  std::span<const Group> groups;  // [experts * groups per expert], expert slowest
  int64_t groups_per_expert = 0;
};

}  // namespace wam
