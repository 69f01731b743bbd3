// How attention divides its work: plain functions, against counting on fingers.
#include "cuda/attention_keys.cuh"

#include <algorithm>

#include "launcher.h"

using namespace sim;

namespace {

AttentionParams fresh_params() {
  AttentionParams p;
  p.group_count = check::integer(1, kMaxQueryGroups);
  for (int g = 0; g < p.group_count; ++g) {
    QueryGroup& group = p.groups[g];
    group.first_row = p.rows, group.rows = check::integer(0, 200), p.rows += group.rows;
    group.segment_count = check::integer(1, kMaxKeySegments);
    for (int s = 0; s < group.segment_count; ++s)
      group.segments[s].first_row = check::integer(0, 50), group.segments[s].rows = check::integer(0, 3) * 41;
  }
  return p;
}

}  // namespace

TEST(splits_divide_all_tiles_in_order) {
  for (int tiles = 0; tiles < 40; ++tiles)
    for (int splits = 1; splits < 10; ++splits) {
      int next = 0;
      for (int split = 0; split < splits; ++split) {
        const TileRange range = split_range(tiles, split, splits);
        CHECK(range.begin == next && range.end >= range.begin && range.end - range.begin <= tiles / splits + 1);
        next = range.end;
      }
      CHECK(next == tiles);
    }
}

TEST(query_tiles_meet_every_row_once_and_no_two_groups) {
  for (int round = 0; round < 200; ++round) {
    const AttentionParams p = fresh_params();
    std::vector<int> met(size_t(p.rows), 0);
    for (int tile = 0; tile < query_tiles<64>(p); ++tile) {
      const QueryTile at = query_tile<64>(p, tile);
      const QueryGroup& group = p.groups[at.group];
      CHECK(at.rows >= 1 && at.rows <= 64);
      CHECK(at.first_row >= group.first_row && at.first_row + at.rows <= group.first_row + group.rows);
      for (int row = at.first_row; row < at.first_row + at.rows; ++row) ++met[size_t(row)];
    }
    CHECK(std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }));
  }
}

TEST(key_tiles_walk_over_all_rows_of_all_segments) {
  for (int round = 0; round < 200; ++round) {
    const AttentionParams p = fresh_params();
    for (int g = 0; g < p.group_count; ++g) {
      std::vector<std::pair<int, int>> want, met;  // segment, row
      for (int s = 0; s < p.groups[g].segment_count; ++s)
        for (int r = 0; r < p.groups[g].segments[s].rows; ++r)
          want.push_back({s, p.groups[g].segments[s].first_row + r});
      const int tiles = key_tiles<32>(p, g);
      for (int index = 0; index < tiles; ++index) {
        KeyTile<32> jumped(p, g, index), walked(p, g, 0);
        for (int i = 0; i < index; ++i) walked.advance(p);
        CHECK(jumped.segment_index() == walked.segment_index() && jumped.row() == walked.row() &&
              jumped.rows_left() == walked.rows_left());
        for (int r = 0; r < std::min(32, jumped.rows_left()); ++r)
          met.push_back({jumped.segment_index(), jumped.row() + r});
      }
      CHECK(met == want);
    }
  }
}

CHECK_MAIN()
