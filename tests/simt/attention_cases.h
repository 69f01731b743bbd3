#pragma once

// Segmented attention on fresh random data: cases that all versions of the kernel share, and what they must give.
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "cuda/device.cuh"
#include "wamcore/kernels/cuda/attention.h"

namespace attention_cases {

using namespace wam::kernels::cuda;

/// Rows of a segment and the rows before and after it in its buffer that nobody may look at.
struct SegmentShape {
  int before, rows, after;
};
struct GroupShape {
  int rows;
  std::vector<SegmentShape> segments;
};
struct Case {
  const char* name;
  int head_dim, heads, batch;
  std::vector<GroupShape> groups;
  int splits = 1;
  bool live = false;  // the visible rows are told in device memory; the parameters name too many
  bool add = false;   // to what is there
};

/// Ragged everywhere; a buffer that ends with its segment ends the allocation too.
inline std::vector<Case> cases(int head_dim) {
  return {
      {"one segment, less than a tile", head_dim, 1, 1, {{5, {{0, 3, 0}}}}},
      {"one segment, whole tiles", head_dim, 2, 1, {{64, {{0, 128, 0}}}}},
      {"cache, video, registers", head_dim, 2, 2, {{75, {{3, 70, 9}, {0, 50, 0}, {0, 25, 0}}}}},
      {"a ring that wraps: four segments", head_dim, 1, 1, {{130, {{40, 24, 0}, {0, 33, 31}, {0, 65, 0}, {0, 1, 0}}}}},
      {"an empty segment between two", head_dim, 1, 1, {{20, {{0, 40, 2}, {1, 0, 1}, {0, 7, 0}}}}},
      {"clean and noisy rows in one pass",
       head_dim,
       1,
       1,
       {{40, {{2, 30, 2}, {0, 40, 35}}}, {35, {{2, 30, 2}, {0, 75, 0}}}}},
      {"three splits", head_dim, 2, 1, {{40, {{3, 140, 9}, {0, 77, 0}}}}, 3},
      {"more splits than tiles", head_dim, 1, 2, {{10, {{0, 20, 0}, {0, 9, 0}}}}, 4},
      {"rows told in device memory", head_dim, 1, 1, {{70, {{11, 45, 40}, {0, 66, 0}}}}, 1, true},
      {"no keys at all", head_dim, 1, 1, {{3, {{0, 0, 1}}}}},
      {"added to what is there", head_dim, 2, 1, {{37, {{0, 70, 0}}}}, 1, false, true},
      {"two splits, added", head_dim, 1, 1, {{37, {{0, 140, 0}}}}, 2, false, true},
  };
}

/// Owns all buffers of a case, each its own allocation of exact size.
struct Data {
  explicit Data(const Case& c, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    int rows = 0;
    for (const GroupShape& g : c.groups) rows += g.rows;
    const int width = c.heads * c.head_dim;
    const auto fresh = [&](std::vector<bf16>* v, int64_t count) {
      v->resize(size_t(count));
      for (bf16& x : *v) x = to_bf16(normal(random));
    };
    fresh(&q, int64_t{c.batch} * rows * width);
    out.assign(q.size(), bf16{0x7fc0});
    if (c.add) fresh(&out, int64_t(q.size()));
    before = out;
    lse.assign(size_t(c.batch * c.heads * rows), NAN);
    p = {.q = q.data(),
         .out = out.data(),
         .lse = lse.data(),
         .ldq = width,
         .q_batch = int64_t{rows} * width,
         .ldo = width,
         .out_batch = int64_t{rows} * width,
         .batch = c.batch,
         .rows = rows,
         .heads = c.heads,
         .head_dim = c.head_dim,
         .group_count = int32_t(c.groups.size()),
         .scale = 1.0f / std::sqrt(float(c.head_dim)),
         .add = c.add,
         .splits = c.splits};
    live.assign(size_t(p.group_count * kMaxKeySegments), {-1, -1});
    int first = 0;
    for (size_t g = 0; g < c.groups.size(); ++g) {
      QueryGroup& group = p.groups[g];
      group = {.first_row = first, .rows = c.groups[g].rows, .segment_count = int32_t(c.groups[g].segments.size())};
      first += group.rows;
      for (size_t s = 0; s < c.groups[g].segments.size(); ++s) {
        const SegmentShape& shape = c.groups[g].segments[s];
        const int all = shape.before + shape.rows + shape.after;
        auto& k = *buffers.emplace_back(std::make_unique<std::vector<bf16>>());
        auto& v = *buffers.emplace_back(std::make_unique<std::vector<bf16>>());
        fresh(&k, int64_t{c.batch} * all * width);
        fresh(&v, k.size());
        // Rows beside the segment are made to stand out, so that a single one that is looked at shows.
        for (int b = 0; b < c.batch; ++b)
          for (int r = 0; r < all; ++r)
            for (int i = 0; i < width && (r < shape.before || r >= shape.before + shape.rows); ++i) {
              const size_t at = (size_t(b) * all + r) * width + i;
              k[at] = to_bf16(4.0f * to_float(k[at]));
              v[at] = to_bf16(1000.0f);
            }
        group.segments[s] = {.k = k.data(),
                             .v = v.data(),
                             .ld = width,
                             .batch_stride = int64_t{all} * width,
                             .first_row = shape.before,
                             .rows = shape.rows,
                             .buffer_rows = all};
        live[g * kMaxKeySegments + s] = {shape.before, shape.rows};
        if (c.live) {
          group.segments[s].first_row = 0;
          group.segments[s].rows = all;
        }
      }
    }
    if (c.live) p.live = live.data();
    if (c.splits > 1) {
      split_out.assign(size_t(c.splits) * out.size(), NAN);
      split_lse.assign(size_t(c.splits) * lse.size(), NAN);
      p.split_out = split_out.data();
      p.split_lse = split_lse.data();
    }
  }

  std::vector<bf16> q, out, before;
  std::vector<float> lse, split_out, split_lse;
  std::vector<LiveRows> live;
  std::vector<std::unique_ptr<std::vector<bf16>>> buffers;
  AttentionParams p;
};

/// The definition in float64: fills out [batch, rows, heads, head_dim] and lse [batch, heads, rows].
inline void reference(const Case& c, const Data& data, std::vector<double>* out, std::vector<double>* lse) {
  const AttentionParams& p = data.p;
  out->assign(data.out.size(), 0.0);
  lse->assign(data.lse.size(), -INFINITY);
  for (int b = 0; b < p.batch; ++b)
    for (int h = 0; h < p.heads; ++h)
      for (int g = 0; g < p.group_count; ++g)
        for (int i = p.groups[g].first_row; i < p.groups[g].first_row + p.groups[g].rows; ++i) {
          const bf16* q = p.q + b * p.q_batch + i * p.ldq + h * p.head_dim;
          double* y = out->data() + b * p.out_batch + i * p.ldo + h * p.head_dim;
          double sum = 0;
          for (size_t s = 0; s < c.groups[size_t(g)].segments.size(); ++s) {
            const SegmentShape& shape = c.groups[size_t(g)].segments[s];
            const KeySegment& keys = p.groups[g].segments[s];
            for (int j = shape.before; j < shape.before + shape.rows; ++j) {
              const int64_t at = b * keys.batch_stride + j * keys.ld + h * p.head_dim;
              double dot = 0;
              for (int d = 0; d < p.head_dim; ++d) dot += double(to_float(q[d])) * to_float(keys.k[at + d]);
              const double weight = std::exp(dot * p.scale);
              sum += weight;
              for (int d = 0; d < p.head_dim; ++d) y[d] += weight * to_float(keys.v[at + d]);
            }
          }
          for (int d = 0; d < p.head_dim && sum > 0; ++d) y[d] /= sum;
          for (int d = 0; d < p.head_dim && c.add; ++d) y[d] += to_float(data.before[size_t(y - out->data() + d)]);
          if (sum > 0) (*lse)[size_t((b * p.heads + h) * p.rows + i)] = std::log(sum);
        }
}

/// Distance to the reference: of the outputs relative in the l2 norm, of lse absolute.
struct Errors {
  double out = 0, lse = 0;
};
inline Errors errors(const Case& c, const Data& data) {
  std::vector<double> out, lse;
  reference(c, data, &out, &lse);
  double difference = 0, norm = 0;
  Errors e;
  for (size_t i = 0; i < out.size(); ++i) {
    const double d = to_float(data.out[i]) - out[i];
    difference += d * d;
    norm += out[i] * out[i];
  }
  e.out = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  for (size_t i = 0; i < lse.size(); ++i) {
    if (lse[i] == -INFINITY && data.lse[i] == -INFINITY) continue;
    const double d = std::abs(data.lse[i] - lse[i]);
    e.lse = d > e.lse || d != d ? d : e.lse;
    if (d != d) break;
  }
  return e;
}

}  // namespace attention_cases
