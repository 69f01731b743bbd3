// Attention over keys in several places.
#include <limits>
#include <tuple>

#include "checks.h"

namespace device_check {
namespace {

/// Rows that are seen, and the rows before and after them in their buffer that are not.
struct Segment {
  int before, rows, after;
};
struct Group {
  int rows;
  std::vector<Segment> segments;
};
struct Shape {
  const char* of;
  int head_dim, heads, batch;
  std::vector<Group> groups;
  int splits = 1;
  bool live = false;  // the visible rows are told in device memory
  int pad = 0;        // elements between the rows of q and out
  bool add = false;   // to what is in out
};

double dot(const bf16* a, const bf16* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += double(to_float(a[i])) * to_float(b[i]);
  return sum;
}

class Attention {
 public:
  Attention(const Shape& s, Rig& rig, Fresh& fresh) : s_(s), memory_(rig), width_(s.heads * s.head_dim) {
    for (const Group& g : s.groups) rows_ += g.rows;
    ld_ = width_ + s.pad;
    p_ = {.ldq = ld_,
          .q_batch = rows_ * ld_,
          .ldo = ld_,
          .out_batch = rows_ * ld_,
          .batch = s.batch,
          .rows = int32_t(rows_),
          .heads = s.heads,
          .head_dim = s.head_dim,
          .group_count = int32_t(s.groups.size()),
          .scale = 1.0f / std::sqrt(float(s.head_dim)),
          .splits = s.splits};
    q_ = fresh.array<bf16>(size_t(s.batch * rows_ * ld_));
    p_.q = memory_.input(q_);
    p_.add = s.add;
    before_ = fresh.array<bf16>(s.add ? q_.size() : 0);
    for (size_t i = 0; i < before_.size(); ++i)
      if (int64_t(i) % ld_ >= width_) before_[i] = bf16{0xffff};  // between the rows
    p_.out = s.add ? memory_.both(before_) : memory_.output<bf16>(q_.size());
    p_.lse = memory_.output<float>(size_t(s.batch * s.heads * rows_));
    std::vector<LiveRows> live(size_t(p_.group_count * kMaxKeySegments), {0, 0});
    int first = 0;
    for (size_t g = 0; g < s.groups.size(); ++g) {
      QueryGroup& group = p_.groups[g];
      group = {.first_row = first, .rows = s.groups[g].rows, .segment_count = int32_t(s.groups[g].segments.size())};
      first += group.rows;
      for (size_t i = 0; i < s.groups[g].segments.size(); ++i) {
        const Segment& segment = s.groups[g].segments[i];
        place(segment, fresh, group.segments[i]);
        live[g * kMaxKeySegments + i] = {segment.before, segment.rows};
        if (s.live) group.segments[i].first_row = 0, group.segments[i].rows = group.segments[i].buffer_rows;
      }
    }
    if (s.live) p_.live = memory_.input(live);
    if (s.splits > 1) {
      p_.split_out = memory_.output<float>(size_t(s.splits * s.batch * rows_ * width_));
      p_.split_lse = memory_.output<float>(size_t(s.splits * s.batch * s.heads * rows_));
    }
  }

  const AttentionParams& params() const { return p_; }

  /// All rows where those are few; else, of every head, one row of each 64.
  Distance compare(Fresh& fresh) const {
    memory_.check();
    const std::vector<bf16> out = memory_.fetch(p_.out, q_.size());
    const std::vector<float> lse = memory_.fetch(p_.lse, size_t(s_.batch * s_.heads * rows_));
    if (std::any_of(lse.begin(), lse.end(), [](float v) { return v != v; }))
      throw std::runtime_error("left a sum unwritten, or it is NaN");
    unwritten(out);
    const int step = rows_ * s_.heads * s_.batch <= 1024 ? 1 : 64;
    // Weights are rounded to bf16 before they meet the values: an element may be off by some of the row's spread.
    Collect all(kHalfUnitBf16, 0.03);
    const int64_t tiles = (rows_ + step - 1) / step;
    std::vector<int64_t> offset;
    for (int64_t i = 0; i < tiles; ++i) offset.push_back(std::min(rows_ - 1, i * step + fresh.under(step)));
    std::atomic<bool> sums_wrong{false};
    parallel(s_.batch * s_.heads * tiles, [&](int64_t i) {
      const int64_t b = i / tiles / s_.heads, head = i / tiles % s_.heads, row = offset[size_t(i % tiles)];
      Collect mine = all.again();
      const double want = one(b, head, row, out, mine);
      const double got = lse[size_t((b * s_.heads + head) * rows_ + row)];
      if (!(got == want || std::abs(got - want) <= 2e-5 + 2e-6 * std::abs(want))) sums_wrong = true;
      all.add(mine);
    });
    if (sums_wrong) throw std::runtime_error("lse is wrong");
    return all.distance();
  }

 private:
  struct Keys {
    std::vector<bf16> k, v;
  };
  // Rows beside the segment are made to stand out, so that a single one that is looked at shows.
  void place(const Segment& s, Fresh& fresh, KeySegment& to) {
    const int64_t all = s.before + s.rows + s.after, count = s_.batch * all * width_;
    Keys& keys = keys_.emplace_back(fresh.array<bf16>(size_t(count)), fresh.array<bf16>(size_t(count)));
    for (int64_t b = 0; b < s_.batch; ++b)
      for (int64_t r = 0; r < all; ++r) {
        if (r >= s.before && r < s.before + s.rows) continue;
        for (int64_t i = 0; i < width_; ++i) {
          bf16& k = keys.k[size_t((b * all + r) * width_ + i)];
          k = to_bf16(4.0f * to_float(k));
          keys.v[size_t((b * all + r) * width_ + i)] = to_bf16(1000.0f);
        }
      }
    to = {.k = memory_.input(keys.k),
          .v = memory_.input(keys.v),
          .ld = width_,
          .batch_stride = all * width_,
          .first_row = s.before,
          .rows = s.rows,
          .buffer_rows = int32_t(all)};
  }
  void unwritten(const std::vector<bf16>& out) const {
    for (int64_t r = 0; r < s_.batch * rows_; ++r)
      for (int64_t c = 0; c < ld_; ++c) {
        const bool hole = out[size_t(r * ld_ + c)].bits == 0xffff;
        if (hole && c < width_) throw std::runtime_error("left an element unwritten");
        if (!hole && c >= width_) throw std::runtime_error("wrote between the rows");
      }
  }
  // Compares one row; returns its lse.
  double one(int64_t b, int64_t head, int64_t row, const std::vector<bf16>& out, Collect& all) const {
    size_t g = 0, buffer = 0;
    while (row >= p_.groups[g].first_row + p_.groups[g].rows) buffer += s_.groups[g++].segments.size();
    const bf16* q = q_.data() + (b * rows_ + row) * ld_ + head * s_.head_dim;
    struct Key {
      double score;
      const bf16* v;
    };
    std::vector<Key> keys;
    double top = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < s_.groups[g].segments.size(); ++i) {
      const Segment& segment = s_.groups[g].segments[i];
      const Keys& from = keys_[buffer + i];
      const int64_t all_rows = segment.before + segment.rows + segment.after;
      for (int64_t r = segment.before; r < segment.before + segment.rows; ++r) {
        const int64_t at = (b * all_rows + r) * width_ + head * s_.head_dim;
        keys.push_back({dot(q, from.k.data() + at, s_.head_dim) * p_.scale, from.v.data() + at});
        top = std::max(top, keys.back().score);
      }
    }
    double sum = 0;
    std::vector<double> want(size_t(s_.head_dim), 0.0);
    for (const Key& key : keys) {
      const double weight = std::exp(key.score - top);
      sum += weight;
      for (int d = 0; d < s_.head_dim; ++d) want[size_t(d)] += weight * to_float(key.v[d]);
    }
    double spread = 0;
    for (double& v : want) v = sum > 0 ? v / sum : 0.0, spread += v * v;
    spread = std::sqrt(spread / s_.head_dim) + 1e-6;
    const int64_t at = (b * rows_ + row) * ld_ + head * s_.head_dim;
    for (int d = 0; d < s_.head_dim; ++d) {
      // what is added is rounded before and after
      const double more = s_.add ? to_float(before_[size_t(at + d)]) : 0.0;
      all.add(to_float(out[size_t(at + d)]), more + want[size_t(d)], spread + (s_.add ? 0.1 : 0.0));
    }
    return sum > 0 ? top + std::log(sum) : -std::numeric_limits<double>::infinity();
  }

  Shape s_;
  Memory memory_;
  int64_t width_, rows_ = 0, ld_ = 0;
  std::vector<bf16> q_, before_;
  std::vector<Keys> keys_;
  AttentionParams p_;
};

void add(std::vector<Check>& to, const Shape& s) {
  int keys = 0, rows = 0;
  for (const Segment& segment : s.groups[0].segments) keys += segment.rows;
  for (const Group& g : s.groups) rows += g.rows;
  std::string shape = std::string(s.of) + ", " + std::to_string(rows) + " of " + std::to_string(keys) + ", " +
                      std::to_string(s.heads) + "x" + std::to_string(s.head_dim);
  if (s.batch > 1) shape += ", batch " + std::to_string(s.batch);
  if (s.add) shape += ", added";
  if (s.splits > 1) shape += ", " + std::to_string(s.splits) + " splits";
  for (const bool sm90 : {false, true})
    to.push_back({.kernel = sm90 ? "attention_sm90" : "attention_sm80",
                  .shape = shape,
                  .tolerance = 4.8e-3,  // as on the simulated machine: weights in bf16, results in bf16
                  .sm90 = sm90,
                  .run = [s, sm90](Rig& rig, Fresh& fresh) {
                    Attention a(s, rig, fresh);
                    if (sm90)
                      rig.start(AttentionSm90{a.params()});
                    else
                      rig.start(AttentionSm80{a.params()});
                    return a.compare(fresh);
                  }});
}

}  // namespace

std::vector<Check> attention_checks(Sizes sizes) {
  std::vector<Check> out;
  const bool tiny = sizes == Sizes::tiny;
  for (const int head_dim : {64, 128}) {
    if (!tiny) {
      add(out, {"less than a tile", head_dim, 1, 1, {{5, {{0, 3, 0}}}}});
      add(out, {"whole tiles", head_dim, 3, 1, {{256, {{0, 512, 0}}}}});
      add(out, {"an empty segment", head_dim, 1, 1, {{20, {{0, 40, 2}, {1, 0, 1}, {0, 7, 0}}}}});
      add(out, {"no keys", head_dim, 1, 1, {{3, {{0, 0, 1}}}}});
      add(out, {"more splits than tiles", head_dim, 1, 2, {{10, {{0, 20, 0}, {0, 9, 0}}}}, 4});
    }
    add(out, {"a ring that wraps",
              head_dim,
              1,
              1,
              {{130, {{40, 24, 0}, {0, 33, 31}, {0, 65, 0}, {0, 1, 0}}}},
              1,
              false,
              16});
    if (tiny && head_dim == 64) continue;
    add(out, {"image tokens", head_dim, 2, 1, {{29, {{0, 77, 0}}}}, 1, false, 0, true});
    if (!tiny) add(out, {"image tokens", head_dim, 2, 1, {{29, {{0, 257, 0}}}}, 3, false, 0, true});
    add(out, {"cache, video, registers", head_dim, 2, tiny ? 1 : 2, {{75, {{3, 170, 9}, {0, 50, 0}, {0, 25, 0}}}}, 2});
    add(out, {"clean and noisy rows",
              head_dim,
              1,
              1,
              {{40, {{2, 30, 2}, {0, 40, 35}}}, {35, {{2, 30, 2}, {0, 75, 0}}}},
              1,
              true});
  }
  if (tiny) return out;
  // Cache as a ring of 9 frames of 880 tokens, 1760 tokens of this pass, 25 of actions and state.
  const auto dreamzero = [&](const char* of, int cached, int splits, int batch, bool live) {
    std::vector<Segment> segments;
    if (cached) segments.push_back({880, cached, 7920 - 880 - cached});
    segments.push_back({0, 1760, 25}), segments.push_back({1760, 25, 0});
    add(out, {of, 128, 40, batch, {{1785, segments}}, splits, live});
  };
  dreamzero("14B", 0, 1, 1, false);
  dreamzero("14B", 1760, 1, 1, true);
  dreamzero("14B", 3520, 1, 1, true);
  dreamzero("14B", 3520, attention_splits(560, 132, 42), 1, true);
  dreamzero("14B", 6160, 1, 1, true);
  dreamzero("14B", 6160, attention_splits(560, 132, 63), 1, true);
  dreamzero("14B guided", 3520, 1, 2, true);
  add(out, {"14B, ring turned", 128, 40, 1, {{1785, {{6160, 1760, 0}, {0, 2640, 5280}, {0, 1785, 0}}}}, 1, true});
  add(out, {"14B cross", 128, 40, 1, {{1785, {{0, 512, 0}}}}});
  add(out, {"14B cross", 128, 40, 1, {{1785, {{0, 257, 0}}}}});
  add(out, {"14B observe and denoise",
            128,
            40,
            1,
            {{1760, {{0, 1760, 6160}, {0, 1760, 1785}}}, {1785, {{0, 1760, 6160}, {0, 3545, 0}}}},
            1,
            true});
  add(out, {"5B", 128, 24, 1, {{125, {{50, 300, 100}, {0, 125, 0}}}}, 1, true});
  add(out, {"5B", 128, 24, 1, {{125, {{50, 300, 100}, {0, 125, 0}}}}, 4, true});
  add(out, {"bundled", 64, 2, 1, {{29, {{6, 36, 12}, {0, 29, 0}}}}, 1, true});
  // what bench/cases.json measures: 0, 2, 4 and 7 frames remembered
  for (const int frames : {0, 2, 4, 7})
    for (const auto& [of, head_dim, heads, frame, registers] :
         {std::tuple{"5B", 128, 24, 50, 25}, {"bundled", 64, 2, 6, 17}}) {
      std::vector<Segment> segments;
      if (frames) segments.push_back({frame, frames * frame, (8 - frames) * frame});
      segments.push_back({0, 2 * frame, registers}), segments.push_back({2 * frame, registers, 0});
      add(out, {of, head_dim, heads, 1, {{2 * frame + registers, segments}}, 1, true});
    }
  return out;
}

}  // namespace device_check
