// qk_norm_rope_cachewrite against its definition in float64: norms over the width or per head, rotation, padding, ring.
#include "cuda/qk_norm_rope_cachewrite.cuh"

#include <cmath>

#include "launcher.h"
#include "planted.h"

using namespace sim;

namespace {

struct Case {
  int tokens, heads, head_dim, pitch;
  bool per_head = false, rope = true;
  int store_begin = 0, store_rows = 0;
  bool squares = false;  // the sums of squares are there
};

// Projections of one token lie together, as one fused matrix would give them.
struct Data {
  explicit Data(const Case& given)
      : c(given), inner(c.heads * c.head_dim), wide(c.heads * c.pitch), capacity(c.store_rows + 5) {
    ldx = 3 * inner;
    qkv = normal_bf16(int64_t{c.tokens} * ldx);
    cos = normal(int64_t{c.tokens} * c.head_dim / 2), sin = normal(int64_t{c.tokens} * c.head_dim / 2);
    for (auto& w : norm) w = normal(c.per_head ? c.head_dim : inner, 1.0, 0.3);
    for (auto& y : out) y.assign(size_t(c.tokens) * size_t(wide), kNan);
    for (auto& y : cache) y.assign(size_t(capacity) * size_t(wide), kNan);
    // the stored rows begin near the end of the ring and go on at its beginning
    const int first = c.store_rows / 2;
    slots = {.begin = {capacity - first, 0}, .rows = {first, c.store_rows - first}};
    p = {.parts = 3, .tokens = c.tokens, .heads = c.heads, .head_dim = c.head_dim, .pitch = c.pitch};
    for (size_t i = 0; i < 3; ++i)
      p.part[i] = {.x = qkv.data() + int(i) * inner,
                   .y = out[i].data(),
                   .cache = i == 0 || c.store_rows == 0 ? nullptr : cache[i - 1].data(),
                   .norm = i < 2 ? norm[i].data() : nullptr,
                   .ldx = ldx,
                   .rope = i < 2};
    p.store_begin = c.store_begin, p.store_rows = c.store_rows, p.slots = &slots, p.per_head = c.per_head;
    if (c.rope) p.cos = cos.data(), p.sin = sin.data();
    if (c.squares) give_squares();
  }
  // [tokens, 2, p.squares], as the product with the QKV epilogue leaves them: a number for every 64 columns.
  void give_squares() {
    p.squares = inner / 64;
    for (int t = 0; t < c.tokens; ++t)
      for (int part = 0; part < 2; ++part)
        for (int s = 0; s < p.squares; ++s) {
          float sum = 0;
          for (int j = 0; j < 64; ++j) {
            const float x = to_float(qkv[size_t(t * ldx + part * inner + s * 64 + j)]);
            sum += x * x;
          }
          square.push_back(sum);
        }
    for (int part = 0; part < 2; ++part)
      p.part[part].square = square.data() + part * p.squares, p.part[part].ld_square = 2 * p.squares;
  }
  double want(int part, int token, int head, int d) const {
    const auto x = [&](int h, int e) {
      return double(to_float(qkv[size_t(token * ldx + part * inner + h * c.head_dim + e)]));
    };
    double rstd = 1;
    if (part < 2) {
      double sum = 0;
      for (int h = c.per_head ? head : 0; h < (c.per_head ? head + 1 : c.heads); ++h)
        for (int e = 0; e < c.head_dim; ++e) sum += x(h, e) * x(h, e);
      rstd = 1 / std::sqrt(sum / (c.per_head ? c.head_dim : inner) + double(p.eps));
    }
    const auto normed = [&](int e) {
      return part < 2 ? x(head, e) * rstd * norm[part][size_t(c.per_head ? e : head * c.head_dim + e)] : x(head, e);
    };
    if (part == 2 || !c.rope) return normed(d);
    const size_t at = size_t(token * (c.head_dim / 2) + d / 2);
    const double a = normed(d & ~1), b = normed(d | 1);
    return d & 1 ? a * sin[at] + b * cos[at] : a * cos[at] - b * sin[at];
  }
  int wrong(const Launcher& launch) {
    if (!launch_qk_norm_rope_cachewrite(p, launch)) return -1;
    int count = 0;
    std::vector<bool> written(size_t(capacity), false);
    for (int part = 0; part < 3; ++part)
      for (int token = 0; token < c.tokens; ++token) {
        const int i = token - c.store_begin;
        const bool stored = part > 0 && i >= 0 && i < c.store_rows;
        const int row = !stored ? token : i < slots.rows[0] ? slots.begin[0] + i : slots.begin[1] + i - slots.rows[0];
        if (stored) written[size_t(row)] = true;
        const bf16* y = (stored ? cache[size_t(part) - 1] : out[size_t(part)]).data() + row * wide;
        for (int head = 0; head < c.heads; ++head) {
          for (int d = 0; d < c.head_dim; d += inner > 1000 ? 5 : 1)
            count += !rounded(y[head * c.pitch + d], want(part, token, head, d), 4.0);
          for (int d = c.head_dim; d < c.pitch; ++d) count += y[head * c.pitch + d].bits != 0;
        }
        if (stored)
          for (int j = 0; j < wide; ++j) count += !is_nan(out[size_t(part)][size_t(token * wide + j)]);
      }
    for (int row = 0; row < capacity; ++row)
      if (!written[size_t(row)])
        for (int j = 0; j < wide; ++j) count += !is_nan(cache[0][size_t(row * wide + j)]);
    return count;
  }

  Case c;
  int inner, wide, capacity;
  int64_t ldx;
  std::vector<bf16> qkv, out[3], cache[2];
  std::vector<float> cos, sin, norm[2], square;
  CacheSlots slots;
  QkNormRopeCacheWriteParams p;
};

}  // namespace

TEST(equals_its_definition) {
  const Case cases[] = {
      {4, 1, 2, 2},
      {5, 3, 10, 10, false, true, 1, 3},
      {5, 2, 6, 64, false, true, 0, 4},  // a small head, padded for the attention kernel
      {7, 2, 24, 64, true, true, 2, 4},
      {6, 4, 64, 64, false, true, 0, 5},
      {3, 3, 128, 128, true, false},
      {2, 24, 128, 128, false, true, 0, 2},  // 5B
      {2, 40, 128, 128, false, true, 1, 1},  // 14B
      {2, 48, 128, 128, true, true, 0, 1},
      {2, 64, 128, 128},
      {5, 2, 64, 64, false, true, 0, 3, true},
      {3, 8, 24, 64, false, true, 1, 2, true},
      {2, 40, 128, 128, false, true, 1, 1, true},
  };
  for (const Case& c : cases) {
    Data d(c);
    const int wrong = d.wrong({.seed = seed()});
    if (wrong) std::printf("  %d tokens, %d x %d: %d wrong\n", c.tokens, c.heads, c.head_dim, wrong);
    CHECK(wrong == 0);
  }
}

TEST(in_place_where_nothing_is_padded) {
  Data d({5, 2, 64, 64});
  const std::vector<bf16> before = d.qkv;
  std::vector<bf16> rows(size_t(5 * 128));
  for (int t = 0; t < 5; ++t) std::copy_n(d.qkv.data() + t * d.ldx, 128, rows.data() + t * 128);
  d.p.part[0].x = d.p.part[0].y = rows.data();
  d.p.part[0].ldx = 128;
  d.p.parts = 1;
  CHECK(launch_qk_norm_rope_cachewrite(d.p, Launcher{.seed = seed()}));
  for (int t = 0; t < 5; ++t)
    for (int j = 0; j < 128; ++j) CHECK(rounded(rows[size_t(t * 128 + j)], d.want(0, t, j / 64, j % 64), 4.0));
}

TEST(impossible_sizes_are_refused) {
  Data d({1, 1, 2, 2});
  const auto refused = [&](auto change) {
    QkNormRopeCacheWriteParams p = d.p;
    change(p);
    return !launch_qk_norm_rope_cachewrite(p, Launcher{});
  };
  CHECK(refused([](auto& p) { p.tokens = 0; }));
  CHECK(refused([](auto& p) { p.head_dim = 3, p.pitch = 4; }));
  CHECK(refused([](auto& p) { p.pitch = 1; }));
  CHECK(refused([](auto& p) { p.parts = 4; }));
  CHECK(refused([](auto& p) { p.heads = kQkMostColumns; }));
  const float square = 1;
  CHECK(refused([&](auto& p) { p.part[0].square = &square; }));  // of how many numbers?
  CHECK(refused([&](auto& p) { p.part[0].square = &square, p.squares = 1, p.per_head = true; }));
}

TEST(odd_addresses_are_refused) {
  // Two neighbours are read at once: on a device an odd address ends the context.
  Data d({3, 1, 2, 2});
  const auto refused = [&](auto change) {
    QkNormRopeCacheWriteParams p = d.p;
    change(p.part[0]);
    return !launch_qk_norm_rope_cachewrite(p, Launcher{});
  };
  CHECK(refused([](HeadRows& r) { ++r.x; }));
  CHECK(refused([](HeadRows& r) { ++r.y; }));
  CHECK(refused([](HeadRows& r) { r.ldx = 3; }));
  std::vector<float> norm(4, 1.0f);
  CHECK(refused([&](HeadRows& r) { r.norm = norm.data() + 1; }));
  std::vector<bf16> cache(8);
  CHECK(refused([&](HeadRows& r) { r.cache = cache.data() + 1; }));
}

TEST(the_given_sums_are_what_the_norm_uses) {
  Data d({3, 2, 64, 64, false, true, 0, 0, true});
  for (float& s : d.square) s *= 4;  // rows come out half as large
  CHECK(d.wrong({.seed = seed()}) > 0);
}

TEST(planted_bugs_are_caught) {
  for (const char* bug : {"no_barrier", "slot_off_by_one"})
    for (unsigned s = 1; s <= 3; ++s) {
      const ChildResult r = run_in_child([&] {
        Data d({6, 2, 128, 128, false, true, 0, 6});
        if (d.wrong({.seed = s, .planted = bug}) != 0) throw std::runtime_error("wrong values");
      });
      CHECK(!r.clean);
    }
}

TEST(columns_too_many_are_caught) {
  const ChildResult r = run_in_child([] {
    Data d({6, 2, 24, 64, false, true, 0, 6});
    if (d.wrong({.seed = 1, .planted = "columns_out_of_bounds"}) != 0) throw std::runtime_error("wrong values");
  });
  CHECK(!r.clean);
}

CHECK_MAIN()
