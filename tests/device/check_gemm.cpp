// Products with every epilogue.
#include "checks.h"

namespace device_check {
namespace {

enum class Kind { sm80, sm90, fp8, fp8_sm89 };
bool quantised(Kind kind) { return kind == Kind::fp8 || kind == Kind::fp8_sm89; }

struct Shape {
  const char* of;  // where the shape comes from
  GemmEpilogue epilogue;
  int m, n, k;
  int pad = 0;  // elements between the rows of x, w and y, a multiple of 16
  bool bias = true;
  int times = 3;              // gate_residual: rows of the gate
  bool in_place = false;      // gate_residual: y is the residual
  int parts = 3, normed = 2;  // qkv
  bool gate_base = false;
};
struct Choice {
  Kind kind;
  int tile = -1, splits = 1;  // -1: as the library chooses
};

const char* name_of(GemmEpilogue e) {
  switch (e) {
    case GemmEpilogue::bias:
      return "bias";
    case GemmEpilogue::bias_gelu:
      return "gelu";
    case GemmEpilogue::gate_residual:
      return "gate";
    case GemmEpilogue::qkv:
      return "qkv";
  }
  return "?";
}

// Operands as the kernel has them, row-major without padding, for the reference.
struct Operands {
  std::vector<float> x, w;               // [m, k], [n, k]
  std::vector<double> x_scale, w_scale;  // [m], [n]
};

double dot(const float* a, const float* b, int k) {
  double sums[4] = {};
  int i = 0;
  for (; i + 4 <= k; i += 4)
    for (int j = 0; j < 4; ++j) sums[j] += double(a[i + j]) * b[i + j];
  for (; i < k; ++i) sums[0] += double(a[i]) * b[i];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

std::vector<float> floats(const std::vector<bf16>& from, int rows, int cols, int64_t ld) {
  std::vector<float> out(size_t(rows) * cols);
  parallel(rows, [&](int64_t r) {
    for (int c = 0; c < cols; ++c) out[size_t(r) * cols + c] = to_float(from[size_t(r * ld + c)]);
  });
  return out;
}

// One product on a rig: all arrays, the launch, what came of it.
class Product {
 public:
  Product(const Shape& s, const Choice& choice, Rig& rig, Fresh& fresh)
      : s_(s), choice_(choice), rig_(rig), memory_(rig), third_(s.n / s.parts) {
    p_.epilogue = s.epilogue;
    p_.m = s.m, p_.n = s.n, p_.k = s.k;
    p_.ldx = s.k + s.pad, p_.ldw = s.k + 2 * s.pad, p_.ldy = s.n + s.pad, p_.ldr = s.in_place ? p_.ldy : s.n;
    p_.ldg = s.n + s.pad;
    // what lies between the rows stands out
    std::vector<bf16> x = fresh.array<bf16>(size_t(s.m * p_.ldx)),
                      w = fresh.array<bf16>(size_t(s.n * p_.ldw), 1.0f / std::sqrt(float(s.k)));
    const auto mark = [&](std::vector<bf16>& v, int rows, int64_t ld) {
      for (int r = 0; r < rows; ++r)
        for (int64_t i = s.k; i < ld; ++i) v[size_t(r * ld + i)] = to_bf16(1000.0f);
    };
    mark(x, s.m, p_.ldx), mark(w, s.n, p_.ldw);
    o_.x = floats(x, s.m, s.k, p_.ldx), o_.w = floats(w, s.n, s.k, p_.ldw);
    p_.x = memory_.input(x), p_.w = memory_.input(w);
    if (s.bias) {
      bias_ = fresh.array<bf16>(size_t(s.n));
      p_.bias = memory_.input(bias_);
    }
    if (s.epilogue == GemmEpilogue::qkv) {
      place_parts();
      return;
    }
    if (s.epilogue == GemmEpilogue::gate_residual) {
      gate_ = fresh.array<float>(size_t(s.times) * size_t(p_.ldg));
      for (int i = 0; i < s.m; ++i) gate_row_.push_back(int32_t(fresh.under(s.times)));
      p_.gate = memory_.input(gate_);
      if (s.gate_base) {
        gate_base_ = fresh.array<float>(size_t(s.n));
        p_.gate_base = memory_.input(gate_base_);
      }
      if (s.times > 1)
        p_.gate_row = memory_.input(gate_row_);
      else
        std::fill(gate_row_.begin(), gate_row_.end(), 0);
      residual_ = fresh.array<bf16>(size_t(s.m) * size_t(p_.ldr));
      if (s.in_place) {
        p_.residual = p_.y = memory_.both(residual_);
        return;
      }
      p_.residual = memory_.input(residual_);
    }
    p_.y = memory_.output<bf16>(size_t(s.m) * size_t(p_.ldy));
  }

  void start() {
    const int sms = rig_.multiprocessors();
    if (choice_.kind == Kind::sm80) return rig_.start(GemmSm80{p_, multiprocessors_for_tile(sms, gemm_tile_sm80)});
    if (choice_.kind == Kind::fp8_sm89) {
      const Fp8Operands operands = quantised_operands();
      return rig_.start(GemmFp8Sm89{{p_, operands}, multiprocessors_for_tile(sms, gemm_tile_fp8_sm89)});
    }
    const int slice = choice_.kind == Kind::fp8 ? 128 : 64;
    GemmChoiceSm90 choice{choice_.tile, choice_.splits};
    if (choice_.tile < 0)
      choice = choice_.kind == Kind::fp8 ? gemm_choice_fp8_sm90(s_.m, s_.n, s_.k, sms)
                                         : gemm_choice_bf16_sm90(s_.m, s_.n, s_.k, sms);
    choice.splits = std::min(choice.splits, (s_.k + slice - 1) / slice);
    GemmScratch scratch;
    if (choice.splits > 1) {
      scratch.partial = memory_.output<float>(size_t(gemm_split_floats(s_.m, s_.n, choice)));
      counters_ = size_t(gemm_tiles_sm90(s_.m, s_.n, kGemmColsSm90[choice.tile]));
      scratch.arrived = arrived_ = memory_.both(std::vector<int32_t>(counters_));
    }
    if (choice_.kind == Kind::sm90) return rig_.start(GemmSm90{p_, choice, scratch});
    const Fp8Operands operands = quantised_operands();
    rig_.start(GemmFp8Sm90{p_, operands, choice, scratch});
  }

  /// Sampled rows at all columns and sampled columns at all rows, so that every tile is met.
  Distance compare(Fresh& fresh) {
    memory_.check();
    if (arrived_)
      for (const int32_t n : memory_.fetch(arrived_, counters_))
        if (n != 0) throw std::runtime_error("counters of the parts of k are not zero afterwards");
    fetch();
    // A sum of float32 products in another order; e4m3 tensor cores keep 14 bits of it.
    Collect all(kHalfUnitBf16, quantised(choice_.kind) ? 6e-3 : 1e-3);
    const std::vector<int64_t> rows = fresh.some(s_.m, 24), cols = fresh.some(s_.n, 24);
    parallel(int64_t(rows.size()), [&](int64_t r) {
      Collect mine = all.again();
      for (int j = 0; j < s_.n; ++j) one(mine, rows[size_t(r)], j);
      all.add(mine);
    });
    parallel(s_.m, [&](int64_t i) {
      Collect mine = all.again();
      for (const int64_t j : cols) one(mine, i, j);
      all.add(mine);
    });
    unwritten();
    if (p_.square) squares();
    return all.distance();
  }

 private:
  void place_parts() {
    p_.parts = s_.parts, p_.normed = s_.normed;
    for (int i = 0; i < s_.parts; ++i) {
      p_.ld_part[i] = third_ + s_.pad * i;
      p_.part[i] = memory_.output<bf16>(size_t(s_.m) * size_t(p_.ld_part[i]));
    }
    p_.square = memory_.output<float>(size_t(s_.m * s_.normed * (third_ / kSquareStripe)));
  }
  // The tile of an mma.sync kernel follows the number of multiprocessors: the first that leads to the one wanted.
  int multiprocessors_for_tile(int sms, int (*tile_for)(int m, int n, int sms)) const {
    if (choice_.tile < 0) return sms;
    for (int n = 1; n < 4096; ++n)
      if (tile_for(s_.m, s_.n, n) == choice_.tile) return n;
    throw std::runtime_error("no device has this tile at this size");
  }
  // By the kernel that is to be used for it. Scales and values of the reference are what it gives.
  Fp8Operands quantised_operands() {
    Fp8Operands out;
    const auto quantise = [&](const bf16* from, int rows, int64_t ldx, std::vector<float>& values,
                              std::vector<double>& scales, const e4m3** to, const float** scale, int64_t* ld) {
      *ld = (s_.k + 15) / 16 * 16 + s_.pad;
      e4m3* y = memory_.output<e4m3>(size_t(rows) * size_t(*ld));
      float* s = memory_.output<float>(size_t(rows));
      rig_.start(QuantizeRowsParams{.x = from, .y = y, .scale = s, .rows = rows, .cols = s_.k, .ldx = ldx, .ldy = *ld});
      const std::vector<e4m3> bytes = memory_.fetch(y, size_t(rows) * size_t(*ld));
      const std::vector<float> host = memory_.fetch(s, size_t(rows));
      scales.assign(host.begin(), host.end());
      parallel(rows, [&](int64_t r) {
        for (int c = 0; c < s_.k; ++c) values[size_t(r) * s_.k + c] = to_float(bytes[size_t(r * *ld + c)]);
      });
      *to = y, *scale = s;
    };
    quantise(p_.x, s_.m, p_.ldx, o_.x, o_.x_scale, &out.x, &out.x_scale, &out.ldx);
    quantise(p_.w, s_.n, p_.ldw, o_.w, o_.w_scale, &out.w, &out.w_scale, &out.ldw);
    p_.x = p_.w = nullptr;
    return out;
  }

  void fetch() {
    if (s_.epilogue != GemmEpilogue::qkv) {
      y_[0] = memory_.fetch(p_.y, size_t(s_.m) * size_t(p_.ldy));
      return;
    }
    for (int i = 0; i < s_.parts; ++i) y_[i] = memory_.fetch(p_.part[i], size_t(s_.m) * size_t(p_.ld_part[i]));
    square_ = memory_.fetch(p_.square, size_t(s_.m * s_.normed * (third_ / kSquareStripe)));
  }
  double result(int64_t i, int64_t j) const {
    if (s_.epilogue != GemmEpilogue::qkv) return to_float(y_[0][size_t(i * p_.ldy + j)]);
    const size_t part = size_t(j / third_);
    return to_float(y_[part][size_t(i * p_.ld_part[part] + j % third_)]);
  }
  void one(Collect& all, int64_t i, int64_t j) const {
    double v = dot(o_.x.data() + i * s_.k, o_.w.data() + j * s_.k, s_.k);
    if (!o_.x_scale.empty()) v *= o_.x_scale[size_t(i)] * o_.w_scale[size_t(j)];
    if (s_.bias) v += to_float(bias_[size_t(j)]);
    double scale = 1;
    if (s_.epilogue == GemmEpilogue::bias_gelu)
      v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    if (s_.epilogue == GemmEpilogue::gate_residual) {
      const double gate =
          gate_[size_t(gate_row_[size_t(i)] * p_.ldg + j)] + (s_.gate_base ? gate_base_[size_t(j)] : 0.0);
      v = to_float(residual_[size_t(i * p_.ldr + j)]) + gate * v;
      scale += std::abs(gate);
    }
    all.add(result(i, j), v, scale);
  }
  // Every element was written, and nothing between the rows.
  void unwritten() const {
    const auto look = [&](const std::vector<bf16>& y, int64_t cols, int64_t ld) {
      std::atomic<bool> hole{false}, spill{false};
      parallel(s_.m, [&](int64_t r) {
        for (int64_t c = 0; c < ld; ++c) {
          const bf16 v = y[size_t(r * ld + c)];
          if (c < cols)
            hole = hole || v.bits == 0xffff;
          else
            spill = spill || v.bits != (s_.in_place ? residual_[size_t(r * ld + c)].bits : 0xffff);
        }
      });
      if (hole) throw std::runtime_error("left an element unwritten");
      if (spill) throw std::runtime_error("wrote between the rows");
    };
    if (s_.epilogue != GemmEpilogue::qkv) return look(y_[0], s_.n, p_.ldy);
    for (int i = 0; i < s_.parts; ++i) look(y_[i], third_, p_.ld_part[i]);
  }
  // Sums of squares of what was stored.
  void squares() const {
    const int stripes = third_ / kSquareStripe;
    std::atomic<bool> wrong{false};
    parallel(s_.m, [&](int64_t i) {
      for (int part = 0; part < s_.normed; ++part)
        for (int s = 0; s < stripes; ++s) {
          double sum = 0;
          for (int j = 0; j < kSquareStripe; ++j) sum += std::pow(result(i, part * third_ + s * kSquareStripe + j), 2);
          const double got = square_[size_t((i * s_.normed + part) * stripes + s)];
          if (!(std::abs(got - sum) <= 1e-5 * sum)) wrong = true;
        }
    });
    if (wrong) throw std::runtime_error("sums of squares are wrong");
  }

  Shape s_;
  Choice choice_;
  Rig& rig_;
  Memory memory_;
  int third_;
  GemmParams p_;
  Operands o_;
  std::vector<bf16> bias_, residual_, y_[3];
  std::vector<float> gate_, gate_base_, square_;
  std::vector<int32_t> gate_row_;
  int32_t* arrived_ = nullptr;
  size_t counters_ = 0;
};

void add(std::vector<Check>& to, const Shape& s, const Choice& c) {
  const char* const names[] = {"gemm_sm80", "gemm_sm90", "gemm_fp8_sm90", "gemm_fp8_sm89"};
  std::string kernel = names[int(c.kind)];
  std::string shape = std::string(s.of) + " " + name_of(s.epilogue) + " " + std::to_string(s.m) + "x" +
                      std::to_string(s.n) + "x" + std::to_string(s.k);
  if (s.pad) shape += " strided";
  if (s.in_place) shape += " in place";
  if (s.gate_base) shape += " on a table";
  if (s.parts < 3) shape += " in " + std::to_string(s.parts);
  if (c.tile >= 0) shape += ", tile " + std::to_string(c.tile);
  if (c.splits > 1) shape += ", k in " + std::to_string(c.splits);
  to.push_back({.kernel = std::move(kernel),
                .shape = std::move(shape),
                .tolerance = 3.4e-3,  // twice what rounding the results to bf16 costs
                .sm90 = c.kind == Kind::sm90 || c.kind == Kind::fp8,
                .fp8 = quantised(c.kind),
                .run = [s, c](Rig& rig, Fresh& fresh) {
                  Product product(s, c, rig, fresh);
                  product.start();
                  return product.compare(fresh);
                }});
}

}  // namespace

std::vector<Check> gemm_checks(Sizes sizes) {
  using enum GemmEpilogue;
  std::vector<Check> out;
  const bool tiny = sizes == Sizes::tiny;
  // Ragged in every direction, for every tile; wide enough for two tiles of the widest.
  const int m = tiny ? 131 : 301, n = tiny ? 264 : 712, k = tiny ? 144 : 1104;
  const Shape ragged[] = {{"ragged", bias, m, n, k, 16},
                          {"ragged", bias_gelu, m, n, k, 16},
                          {"ragged", gate_residual, m, n, k, 16, true, 3, true, 3, 2, true},
                          {"ragged", qkv, m, 3 * kSquareStripe * (tiny ? 2 : 5), k, 16}};
  for (const Kind kind : {Kind::sm80, Kind::sm90, Kind::fp8, Kind::fp8_sm89})
    for (int tile = kind == Kind::fp8 ? 1 : 0; tile < 3; ++tile)
      for (int i = 0; i < 4; ++i)
        if (!tiny || tile == 2 || i == tile) add(out, ragged[i], {kind, tile});
  for (const Kind kind : {Kind::sm90, Kind::fp8}) add(out, ragged[tiny ? 0 : 2], {kind, 2, 2});
  add(out, {"ragged", bias, 1, 136, 16, 0, false}, {Kind::sm80});
  add(out, {"ragged", bias, 1, 136, 16, 0, false}, {Kind::sm90});
  add(out, {"ragged", gate_residual, 20, 64, 96, 0, true, 1}, {Kind::sm90});
  for (const Kind kind : {Kind::sm80, Kind::sm90, Kind::fp8, Kind::fp8_sm89}) {
    add(out, {"keys and values", qkv, 70, 2 * 2 * kSquareStripe, 80, 16, true, 3, false, 2, 1}, {kind});
    if (!tiny) add(out, {"queries", qkv, 70, 3 * kSquareStripe, 80, 16, true, 3, false, 1, 1}, {kind});
  }
  if (tiny) return out;
  for (const Kind kind : {Kind::sm80, Kind::sm90, Kind::fp8, Kind::fp8_sm89}) {
    for (const Kind other : {Kind::sm90, Kind::fp8})
      if (kind == other)
        for (const int splits : {3, 8}) add(out, ragged[splits == 3 ? 3 : 1], {kind, 1, splits});
    for (const int rows : {1785, 3570}) {
      if (rows == 3570 && (kind == Kind::sm80 || kind == Kind::fp8_sm89)) continue;  // guidance as batch 2
      add(out, {"14B qkv", qkv, rows, 15360, 5120}, {kind});
      add(out, {"14B out", gate_residual, rows, 5120, 5120, 0, true, 3, true}, {kind});
      add(out, {"14B cross q", bias, rows, 5120, 5120}, {kind});
      add(out, {"14B up", bias_gelu, rows, 13824, 5120}, {kind});
      add(out, {"14B down", gate_residual, rows, 5120, 13824, 0, true, 3, true}, {kind});
    }
    for (const int rows : {50, 125, 250}) {  // the last with guidance as batch 2
      add(out, {"5B qkv", qkv, rows, 9216, 3072}, {kind});
      add(out, {"5B out", gate_residual, rows, 3072, 3072, 0, true, 3, true}, {kind});
      add(out, {"5B up", bias_gelu, rows, 14336, 3072}, {kind});
      add(out, {"5B down", gate_residual, rows, 3072, 14336, 0, true, 3, true}, {kind});
    }
    for (const int rows : {29, 58}) {
      add(out, {"bundled qkv", qkv, rows, 384, 128}, {kind});
      add(out, {"bundled out", gate_residual, rows, 128, 128, 0, true, 3, true}, {kind});
      add(out, {"bundled up", bias_gelu, rows, 256, 128}, {kind});
      add(out, {"bundled down", gate_residual, rows, 128, 256, 0, true, 3, true}, {kind});
    }
  }
  return out;
}

}  // namespace device_check
