// Kernels that take a row or an element at a time.
#include <array>

#include "checks.h"
#include "wamcore/kernels/cuda/math.h"

namespace device_check {
namespace {

std::string sized(const char* of, int64_t rows, int64_t cols) {
  return std::string(of) + " " + std::to_string(rows) + "x" + std::to_string(cols);
}

// Numbers that are computed in float32 and stored in it, or rounded once to bf16.
Collect in_float32() { return {2e-6, 4e-6}; }
// Half a unit of the last of 4 bits; near zero half a step of 2^-9. What lies next to the middle of two may go either
// way.
Collect in_e4m3() { return {1.002 / 16, 1.002 / 1024}; }
Collect in_bf16() { return {kHalfUnitBf16, 2e-5}; }
constexpr double kFloat32 = 4e-6, kBf16 = 3.4e-3, kE4m3 = 5.4e-2;  // twice what the rounding costs

std::vector<int32_t> time_rows(Fresh& fresh, int rows, int times) {
  std::vector<int32_t> out;
  for (int i = 0; i < rows; ++i) out.push_back(int32_t(fresh.under(times)));
  return out;
}

void hole(const std::vector<bf16>& y, int64_t rows, int64_t cols, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < ld; ++c) {
      const bool untouched = y[size_t(r * ld + c)].bits == 0xffff;
      if (untouched && c < cols) throw std::runtime_error("left an element unwritten");
      if (!untouched && c >= cols) throw std::runtime_error("wrote between the rows");
    }
}

struct LnCase {
  const char* of;
  int rows, cols;
  int pad = 0;
  bool wide = false, affine = false, modulated = true;
  bool base = false, e4m3 = false;  // modulated on top of a table; with a scale a row
};

Distance ln_modulate_check(const LnCase& c, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const int64_t ldx = c.cols + c.pad, ldy = c.cols + 2 * c.pad, ldm = 6 * c.cols;
  constexpr int times = 3;
  const std::vector<float> wide = fresh.array<float>(size_t(c.rows * ldx), 2.0f, 0.7f);
  std::vector<bf16> narrow(wide.size());
  std::transform(wide.begin(), wide.end(), narrow.begin(), to_bf16);
  const std::vector<float> weight = fresh.array<float>(size_t(c.cols)), bias = fresh.array<float>(size_t(c.cols)),
                           table = fresh.array<float>(size_t(times * ldm), 0.5f);
  const std::vector<int32_t> time = time_rows(fresh, c.rows, times);
  const std::vector<float> base = fresh.array<float>(size_t(2 * c.cols), 0.5f);
  LnModulateParams p{.rows = c.rows, .cols = c.cols, .ldx = ldx, .ldy = ldy};
  if (c.e4m3)
    p.y_e4m3 = memory.output<e4m3>(size_t(c.rows * ldy)), p.y_scale = memory.output<float>(size_t(c.rows));
  else
    p.y = memory.output<bf16>(size_t(c.rows * ldy));
  if (c.wide)
    p.x_wide = memory.input(wide);
  else
    p.x = memory.input(narrow);
  if (c.affine) p.weight = memory.input(weight), p.bias = memory.input(bias);
  if (c.modulated) {
    p.shift = memory.input(table), p.scale = p.shift + c.cols, p.ldm = ldm;
    p.time_row = memory.input(time);
  }
  if (c.base) p.shift_base = memory.input(base), p.scale_base = p.shift_base + c.cols;
  rig.start(p);
  memory.check();
  std::vector<float> got, scale(size_t(c.rows), 1.0f);
  if (c.e4m3) {
    for (const e4m3 v : memory.fetch(p.y_e4m3, size_t(c.rows * ldy))) got.push_back(to_float(v));
    scale = memory.fetch(p.y_scale, size_t(c.rows));
  } else {
    const std::vector<bf16> y = memory.fetch(p.y, size_t(c.rows * ldy));
    hole(y, c.rows, c.cols, ldy);
    for (const bf16 v : y) got.push_back(to_float(v));
  }
  Collect all = c.e4m3 ? in_e4m3() : in_bf16();
  parallel(c.rows, [&](int64_t r) {
    Collect mine = all.again();
    const auto x = [&](int64_t i) {
      return c.wide ? double(wide[size_t(r * ldx + i)]) : double(to_float(narrow[size_t(r * ldx + i)]));
    };
    double mean = 0, square = 0;
    for (int64_t i = 0; i < c.cols; ++i) mean += x(i);
    mean /= c.cols;
    for (int64_t i = 0; i < c.cols; ++i) square += (x(i) - mean) * (x(i) - mean);
    const double rstd = 1 / std::sqrt(square / c.cols + double(p.eps));
    std::vector<double> want;
    for (int64_t i = 0; i < c.cols; ++i) {
      double v = (x(i) - mean) * rstd;
      if (c.affine) v = v * weight[size_t(i)] + bias[size_t(i)];
      const size_t m = size_t(time[size_t(r)] * ldm + i);
      const double more[2] = {c.base ? base[size_t(i)] : 0.0, c.base ? base[size_t(c.cols + i)] : 0.0};
      if (c.modulated) v = v * (1 + double(table[m + size_t(c.cols)]) + more[1]) + table[m] + more[0];
      want.push_back(v);
    }
    double unit = 1;  // of a row in e4m3, whose largest element becomes 448
    if (c.e4m3) {
      unit = 0;
      for (const double v : want) unit = std::max(unit, std::abs(v) / 448);
      if (!(std::abs(scale[size_t(r)] - unit) <= 1e-4 * unit)) unit = std::nan("");
    }
    for (int64_t i = 0; i < c.cols; ++i)
      mine.add(got[size_t(r * ldy + i)] * unit, want[size_t(i)], c.e4m3 ? unit : 8.0);
    all.add(mine);
  });
  return all.distance();
}

struct QkCase {
  const char* of;
  int tokens, heads, head_dim, pitch;
  bool per_head = false;
  int store_begin = 0, store_rows = 0;
  bool squares = false;  // the product before has left the sums of squares
};

// Queries, keys and values of one fused matrix; the stored rows begin near the end of the ring and go on at its start.
Distance qk_check(const QkCase& c, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const int64_t inner = c.heads * c.head_dim, wide = c.heads * c.pitch, ldx = 3 * inner, half = c.head_dim / 2;
  const int capacity = c.store_rows + 5, first = c.store_rows / 2;
  const std::vector<bf16> qkv = fresh.array<bf16>(size_t(c.tokens * ldx));
  const std::vector<float> angle = fresh.array<float>(size_t(c.tokens * half), 3.0f);
  std::vector<float> cosine, sine;
  for (const float a : angle) cosine.push_back(std::cos(a)), sine.push_back(std::sin(a));
  const size_t norms = size_t(c.per_head ? c.head_dim : inner);
  const std::vector<float> norm[2] = {fresh.array<float>(norms, 0.3f, 1.0f), fresh.array<float>(norms, 0.3f, 1.0f)};
  const CacheSlots slots{.begin = {capacity - first, 0}, .rows = {first, c.store_rows - first}};
  QkNormRopeCacheWriteParams p{
      .parts = 3, .tokens = c.tokens, .heads = c.heads, .head_dim = c.head_dim, .pitch = c.pitch};
  p.store_begin = c.store_begin, p.store_rows = c.store_rows, p.per_head = c.per_head;
  p.slots = memory.input(std::vector{slots}), p.cos = memory.input(cosine), p.sin = memory.input(sine);
  const bf16* x = memory.input(qkv);
  bf16 *y[3], *cache[3] = {};
  for (int i = 0; i < 3; ++i) {
    y[i] = memory.output<bf16>(size_t(c.tokens * wide));
    if (i > 0 && c.store_rows) cache[i] = memory.output<bf16>(size_t(capacity * wide));
    p.part[i] = {.x = x + i * inner,
                 .y = y[i],
                 .cache = cache[i],
                 .norm = i < 2 ? memory.input(norm[i]) : nullptr,
                 .ldx = ldx,
                 .rope = i < 2};
  }
  if (c.squares) {
    p.squares = int32_t(inner / kSquareStripe);
    std::vector<float> square(size_t(c.tokens * 2 * p.squares), 0.0f);
    parallel(c.tokens, [&](int64_t t) {
      for (int64_t j = 0; j < 2 * inner; ++j)
        square[size_t(t * 2 * p.squares + j / kSquareStripe)] += float(std::pow(to_float(qkv[size_t(t * ldx + j)]), 2));
    });
    const float* at = memory.input(square);
    for (int i = 0; i < 2; ++i) p.part[i].square = at + i * p.squares, p.part[i].ld_square = 2 * p.squares;
  }
  rig.start(p);
  memory.check();
  Collect all = in_bf16();
  for (int part = 0; part < 3; ++part) {
    const std::vector<bf16> out = memory.fetch(y[part], size_t(c.tokens * wide));
    const std::vector<bf16> kept =
        cache[part] ? memory.fetch(cache[part], size_t(capacity * wide)) : std::vector<bf16>();
    std::vector<char> written(size_t(capacity), 0);
    std::atomic<bool> stray{false};
    parallel(c.tokens, [&](int64_t token) {
      Collect mine = all.again();
      const int64_t i = token - c.store_begin;
      const bool stored = cache[part] && i >= 0 && i < c.store_rows;
      const int64_t row = stored ? cache_row(slots, int32_t(i)) : token;
      if (stored) written[size_t(row)] = 1;
      const bf16* got = (stored ? kept : out).data() + row * wide;
      for (int64_t j = 0; j < wide && stored; ++j) stray = stray || out[size_t(token * wide + j)].bits != 0xffff;
      std::vector<double> v(static_cast<size_t>(inner));
      for (int64_t j = 0; j < inner; ++j) v[size_t(j)] = to_float(qkv[size_t(token * ldx + part * inner + j)]);
      const int64_t run = c.per_head ? c.head_dim : inner;
      for (int64_t from = 0; from < inner && part < 2; from += run) {
        double square = 0;
        for (int64_t j = from; j < from + run; ++j) square += v[size_t(j)] * v[size_t(j)];
        const double rstd = 1 / std::sqrt(square / double(run) + double(p.eps));
        for (int64_t j = from; j < from + run; ++j)
          v[size_t(j)] *= rstd * norm[part][size_t(j - (c.per_head ? from : 0))];
      }
      for (int64_t j = 0; j < inner && part < 2; j += 2) {
        const size_t at = size_t(token * half + j % c.head_dim / 2);
        const double a = v[size_t(j)], b = v[size_t(j + 1)];
        v[size_t(j)] = a * cosine[at] - b * sine[at], v[size_t(j + 1)] = a * sine[at] + b * cosine[at];
      }
      for (int h = 0; h < c.heads; ++h)
        for (int d = 0; d < c.pitch; ++d)
          mine.add(to_float(got[h * c.pitch + d]), d < c.head_dim ? v[size_t(h * c.head_dim + d)] : 0.0, 4.0);
      all.add(mine);
    });
    for (int64_t row = 0; row < capacity && cache[part]; ++row)
      for (int64_t j = 0; j < wide && !written[size_t(row)]; ++j)
        stray = stray || kept[size_t(row * wide + j)].bits != 0xffff;
    if (stray) throw std::runtime_error("wrote a row that is not its own");
  }
  return all.distance();
}

Distance quantize_check(int rows, int cols, int pad, bool native, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const int64_t ldx = cols + pad, ldy = (cols + 15) / 16 * 16 + 2 * pad;
  std::vector<bf16> x = fresh.array<bf16>(size_t(rows * ldx));
  for (int64_t i = 0; i < cols && rows > 1; ++i) x[size_t(ldx + i)] = bf16{0};  // a row of zeros
  e4m3* y = memory.output<e4m3>(size_t(rows * ldy));
  float* scale = memory.output<float>(size_t(rows));
  const QuantizeRowsParams p{
      .x = memory.input(x), .y = y, .scale = scale, .rows = rows, .cols = cols, .ldx = ldx, .ldy = ldy};
  if (native)
    rig.start(QuantizeRowsSm89{p});
  else
    rig.start(p);
  memory.check();
  const std::vector<e4m3> bytes = memory.fetch(y, size_t(rows * ldy));
  const std::vector<float> scales = memory.fetch(scale, size_t(rows));
  Collect all = in_e4m3();
  for (int64_t r = 0; r < rows; ++r) {
    double top = 0;
    for (int64_t i = 0; i < cols; ++i) top = std::max(top, std::abs(double(to_float(x[size_t(r * ldx + i)]))));
    const double want = top > 0 ? top / 448 : 1.0;
    if (!(std::abs(double(scales[size_t(r)]) - want) <= 1e-6 * want)) throw std::runtime_error("a scale is wrong");
    for (int64_t i = 0; i < cols; ++i)
      all.add(double(to_float(bytes[size_t(r * ldy + i)])) * want, to_float(x[size_t(r * ldx + i)]), want);
  }
  return all.distance();
}

struct PlainCase {
  const char* of;
  int m, n, k;
  bool x_wide, y_wide;
  Act act = Act::none;
  bool gated = false;  // and added to what is there
};

Distance gemm_plain_check(const PlainCase& c, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const int64_t ldx = c.k + 3, ldw = c.k + 1, ldy = c.n + 5;
  const std::vector<bf16> x = fresh.array<bf16>(size_t(c.m * ldx)),
                          w = fresh.array<bf16>(size_t(c.n * ldw), 1.0f / std::sqrt(float(c.k))),
                          bias = fresh.array<bf16>(size_t(c.n)), residual = fresh.array<bf16>(size_t(c.m * ldy));
  const std::vector<float> gate = fresh.array<float>(size_t(2 * c.n));
  const std::vector<int32_t> time = time_rows(fresh, c.m, 2);
  std::vector<float> x_wide;
  for (const bf16 v : x) x_wide.push_back(to_float(v));
  GemmPlainParams p{.w = memory.input(w),
                    .bias = memory.input(bias),
                    .m = c.m,
                    .n = c.n,
                    .k = c.k,
                    .ldx = ldx,
                    .ldw = ldw,
                    .ldy = ldy,
                    .act = c.act};
  c.x_wide ? (p.x_wide = memory.input(x_wide), nullptr) : (p.x = memory.input(x));
  if (c.gated) {
    p.y = memory.both(residual), p.residual = p.y, p.ldr = ldy;
    p.gate = memory.input(gate), p.gate_row = memory.input(time), p.ldg = c.n;
  } else if (c.y_wide) {
    p.y_wide = memory.output<float>(size_t(c.m * ldy));
  } else {
    p.y = memory.output<bf16>(size_t(c.m * ldy));
  }
  rig.start(p);
  memory.check();
  std::vector<float> got;
  if (c.y_wide) {
    got = memory.fetch(p.y_wide, size_t(c.m * ldy));
  } else {
    for (const bf16 v : memory.fetch(p.y, size_t(c.m * ldy))) got.push_back(to_float(v));
  }
  Collect all(c.y_wide ? 1e-5 : kHalfUnitBf16, c.y_wide ? 1e-4 : 1e-3);
  parallel(c.n, [&](int64_t j) {
    Collect mine = all.again();
    for (int64_t i = 0; i < c.m; ++i) {
      double v = to_float(bias[size_t(j)]);
      for (int64_t l = 0; l < c.k; ++l) v += double(x_wide[size_t(i * ldx + l)]) * to_float(w[size_t(j * ldw + l)]);
      if (c.act == Act::gelu_tanh) v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      if (c.act == Act::gelu_erf) v = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
      if (c.act == Act::silu) v = v / (1 + std::exp(-v));
      if (c.act == Act::relu) v = std::max(v, 0.0);
      if (c.gated) v = to_float(residual[size_t(i * ldy + j)]) + double(gate[size_t(time[size_t(i)] * c.n + j)]) * v;
      mine.add(got[size_t(i * ldy + j)], v);
    }
    all.add(mine);
  });
  return all.distance();
}

Distance sinusoid_check(int rows, int cols, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  std::vector<float> t;
  for (int i = 0; i < 4; ++i) t.push_back(float(fresh.under(1000)));
  const std::vector<int32_t> row = time_rows(fresh, rows, 4);
  float* out = memory.output<float>(size_t(rows * (cols + 2)));
  rig.start(SinusoidParams{
      .t = memory.input(t), .row = memory.input(row), .out = out, .rows = rows, .cols = cols, .ldo = cols + 2});
  memory.check();
  const std::vector<float> got = memory.fetch(out, size_t(rows * (cols + 2)));
  Collect all = in_float32();
  for (int64_t r = 0; r < rows; ++r)
    for (int k = 0; k < cols / 2; ++k) {
      const double angle = double(t[size_t(row[size_t(r)])]) * std::pow(10000.0, -double(k) / (cols / 2));
      all.add(got[size_t(r * (cols + 2) + k)], std::cos(angle));
      all.add(got[size_t(r * (cols + 2) + cols / 2 + k)], std::sin(angle));
    }
  return all.distance();
}

Distance activation_check(int rows, int cols, Rig& rig, Fresh& fresh) {
  Collect all = in_float32();
  for (const Act act : {Act::none, Act::gelu_tanh, Act::gelu_erf, Act::silu, Act::relu}) {
    Memory memory(rig);
    const std::vector<float> x = fresh.array<float>(size_t(rows * cols), 3.0f);
    float* y = memory.output<float>(x.size());
    rig.start(ActivationParams{
        .x = memory.input(x), .y = y, .rows = rows, .cols = cols, .ldx = cols, .ldy = cols, .act = act});
    memory.check();
    const std::vector<float> got = memory.fetch(y, x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = x[i];
      double want = v;
      if (act == Act::gelu_tanh) want = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      if (act == Act::gelu_erf) want = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
      if (act == Act::silu) want = v / (1 + std::exp(-v));
      if (act == Act::relu) want = std::max(v, 0.0);
      all.add(got[i], want);
    }
  }
  return all.distance();
}

// To patches of two arrays and back out of rows of a head.
Distance patchify_check(int frames, int height, int width, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const int channels[2] = {16, 20}, across = width / 2, tokens = frames * (height / 2) * across;
  const int64_t area = int64_t{frames} * height * width, wide = 4 * (channels[0] + channels[1]);
  const std::vector<float> from[2] = {fresh.array<float>(size_t(channels[0] * area)),
                                      fresh.array<float>(size_t(channels[1] * area))};
  bf16* out = memory.output<bf16>(size_t(tokens * wide));
  rig.start(PatchifyParams{.source = {memory.input(from[0]), memory.input(from[1])},
                           .channels = {channels[0], channels[1]},
                           .frames = frames,
                           .height = height,
                           .width = width,
                           .out = out,
                           .ldo = wide});
  const std::vector<float> head = fresh.array<float>(size_t(tokens * 4 * channels[0]));
  float* back = memory.output<float>(size_t(channels[0] * area));
  rig.start(UnpatchifyParams{.x = memory.input(head),
                             .out = back,
                             .channels = channels[0],
                             .frames = frames,
                             .height = height,
                             .width = width,
                             .ldx = 4 * channels[0]});
  memory.check();
  const std::vector<bf16> patches = memory.fetch(out, size_t(tokens * wide));
  const std::vector<float> latents = memory.fetch(back, size_t(channels[0] * area));
  Collect all(kHalfUnitBf16, 1e-9);
  for (int which = 0; which < 2; ++which)
    for (int c = 0; c < channels[which]; ++c)
      for (int64_t i = 0; i < area; ++i) {
        const int x = int(i % width), y = int(i / width % height), frame = int(i / width / height),
                  corner = y % 2 * 2 + x % 2;
        const int64_t token = (int64_t{frame} * (height / 2) + y / 2) * across + x / 2;
        all.add(to_float(patches[size_t(token * wide + 4 * (c + which * channels[0]) + corner)]),
                from[which][size_t(c * area + i)]);
        if (which == 0)
          all.add(latents[size_t(c * area + i)], head[size_t(token * 4 * channels[0] + corner * channels[0] + c)]);
      }
  return all.distance();
}

Distance add_check(int64_t count, Rig& rig, Fresh& fresh) {
  Memory memory(rig);
  const std::vector<bf16> x = fresh.array<bf16>(size_t(count)), y = fresh.array<bf16>(size_t(count));
  bf16* at = memory.both(y);
  rig.start(AddParams{.x = memory.input(x), .y = at, .count = count});
  memory.check();
  const std::vector<bf16> got = memory.fetch(at, size_t(count));
  Collect all(kHalfUnitBf16, 1e-6);
  for (size_t i = 0; i < got.size(); ++i) all.add(to_float(got[i]), double(to_float(x[i])) + to_float(y[i]));
  return all.distance();
}

// A whole schedule with guidance, held frames, a skipped step, actions pulled toward a plan; the device counts the
// steps.
class Schedule {
 public:
  Schedule(std::array<int, 2> counts, int steps, Rig& rig, Fresh& fresh)
      : rig_(rig), fresh_(fresh), memory_(rig), steps_(steps), table_(fresh.array<float>(size_t(steps * 3))) {
    for (int m = 0; m < 2; ++m) set_up(modality_[m], counts[size_t(m)], m == 0);
    p_.steps = steps, p_.time_rows = 3;
    p_.step = memory_.both(std::vector<int32_t>{0});
    p_.ticket = memory_.both(std::vector<uint32_t>{0});
    p_.timestep_table = memory_.input(table_);
    p_.timesteps = memory_.both(std::vector<float>(table_.begin(), table_.begin() + 3));
  }

  Distance run() {
    for (int step = 0; step < steps_; ++step) {
      p_.executed = step % 3 != 2;
      for (int m = 0; m < 2; ++m) p_.modality[m] = modality_[m].p;
      rig_.start(p_);
      for (Modality& m : modality_) advance(m, step, p_.executed);
    }
    memory_.check();
    if (memory_.fetch(p_.step, 1)[0] != steps_ || memory_.fetch(p_.ticket, 1)[0] != 0)
      throw std::runtime_error("steps were miscounted");
    const std::vector<float> times = memory_.fetch(p_.timesteps, 3);
    if (!std::equal(times.begin(), times.end(), table_.end() - 3)) throw std::runtime_error("timesteps are wrong");
    Collect all(1e-5, 1e-5);
    for (const Modality& m : modality_) {
      double top = 1;
      for (const double v : m.want) top = std::max(top, std::abs(v));
      const std::vector<float> got = memory_.fetch(m.p.x, m.want.size());
      for (size_t i = 0; i < got.size(); ++i) all.add(got[i], m.want[i], top);
    }
    return all.distance();
  }

 private:
  struct Modality {
    SamplerModality p;
    std::vector<StepCoefficients> steps;
    std::vector<float> conditional, unconditional, pull, target, weight;
    std::vector<double> want, v, last, m0, m1, m2;
  };
  void set_up(Modality& m, int n, bool video) {
    for (int i = 0; i < steps_; ++i) {
      const auto number = [&] { return fresh_.array<float>(1)[0]; };
      StepCoefficients k{
          .data_x = number(), .data_v = number(), .fix_x = i ? 0.0f : 1.0f, .next_x = number(), .next_m0 = number()};
      if (i > 0) k.fix_last = number(), k.fix_m0 = number(), k.fix_m1 = number(), k.next_m1 = number();
      if (i > 1) k.fix_m2 = number();
      k.moves = !video || i + 1 < steps_;
      k.sigma = number();
      m.pull.push_back(i % 2 ? 0.0f : number());
      m.steps.push_back(k);
    }
    const size_t count = size_t(n);
    const std::vector<float> x = fresh_.array<float>(count);
    m.conditional = fresh_.array<float>(count), m.unconditional = fresh_.array<float>(count);
    m.want.assign(x.begin(), x.end());
    for (auto* a : {&m.v, &m.last, &m.m0, &m.m1, &m.m2}) a->assign(count, 0.0);
    m.p = {.x = memory_.both(x),
           .conditional = memory_.input(m.conditional),
           .unconditional = video ? memory_.input(m.unconditional) : nullptr,
           .velocity = memory_.output<float>(count),
           .last = memory_.output<float>(count),
           .history = memory_.output<float>(3 * count),
           .steps = memory_.input(m.steps),
           .count = n,
           .guidance = video ? 5.0f : 1.0f};
    if (video) {
      m.p.area = n / 6, m.p.frames = 3, m.p.held = 2;
      return;
    }
    m.target = fresh_.array<float>(count), m.weight = fresh_.array<float>(count);
    for (size_t i = 0; i < count; i += 2) m.weight[i] = 0;
    m.p.pull = memory_.input(m.pull), m.p.target = memory_.input(m.target), m.p.weight = memory_.input(m.weight);
  }
  void advance(Modality& m, int step, bool executed) const {
    const StepCoefficients& k = m.steps[size_t(step)];
    for (size_t i = 0; i < m.want.size(); ++i) {
      if (executed)
        m.v[i] = m.p.unconditional
                     ? m.unconditional[i] + double(m.p.guidance) * (double(m.conditional[i]) - m.unconditional[i])
                     : m.conditional[i];
      if (!k.moves || (m.p.area && int(i) / m.p.area % m.p.frames >= m.p.held)) continue;
      double v = m.v[i];
      if (m.p.pull) v -= m.pull[size_t(step)] * (m.target[i] - (m.want[i] - k.sigma * v)) * m.weight[i];
      m.m2[i] = m.m1[i], m.m1[i] = m.m0[i], m.m0[i] = k.data_x * m.want[i] + k.data_v * v;
      m.last[i] =
          k.fix_x * m.want[i] + k.fix_last * m.last[i] + k.fix_m0 * m.m0[i] + k.fix_m1 * m.m1[i] + k.fix_m2 * m.m2[i];
      m.want[i] = k.next_x * m.last[i] + k.next_m0 * m.m0[i] + k.next_m1 * m.m1[i];
    }
  }

  Rig& rig_;
  Fresh& fresh_;
  Memory memory_;
  int steps_;
  std::vector<float> table_;
  Modality modality_[2];
  SamplerStepParams p_;
};

class List {
 public:
  void add(const char* kernel, std::string shape, double tolerance, std::function<Distance(Rig&, Fresh&)> run) {
    checks_.push_back({kernel, std::move(shape), tolerance, false, false, std::move(run)});
  }
  void add(const LnCase& c) {
    std::string shape = sized(c.of, c.rows, c.cols);
    if (c.wide) shape += " float32";
    if (c.affine) shape += " affine";
    if (c.pad) shape += " strided";
    if (c.base) shape += " on a table";
    if (c.e4m3) {
      add("ln_modulate_e4m3", shape, kE4m3, [c](Rig& r, Fresh& f) { return ln_modulate_check(c, r, f); });
      checks_.back().fp8 = true;
      return;
    }
    add("ln_modulate", shape, kBf16, [c](Rig& r, Fresh& f) { return ln_modulate_check(c, r, f); });
  }
  void add(const QkCase& c) {
    std::string shape = std::string(c.of) + " " + std::to_string(c.tokens) + " of " + std::to_string(c.heads) + "x" +
                        std::to_string(c.head_dim);
    if (c.pitch != c.head_dim) shape += " to " + std::to_string(c.pitch);
    if (c.per_head) shape += " per head";
    if (c.squares) shape += ", squares given";
    if (c.store_rows) shape += ", " + std::to_string(c.store_rows) + " stored";
    add("qk_norm_rope_cachewrite", shape, kBf16, [c](Rig& r, Fresh& f) { return qk_check(c, r, f); });
  }
  void add(const PlainCase& c) {
    add("gemm_plain", sized(c.of, c.m, c.n) + "x" + std::to_string(c.k), c.y_wide ? 1e-5 : kBf16,
        [c](Rig& r, Fresh& f) { return gemm_plain_check(c, r, f); });
  }
  void quantize(const char* of, int rows, int cols, int pad) {
    add("quantize_rows", sized(of, rows, cols), kE4m3,
        [=](Rig& r, Fresh& f) { return quantize_check(rows, cols, pad, false, r, f); });
    add("quantize_rows_sm89", sized(of, rows, cols), kE4m3,
        [=](Rig& r, Fresh& f) { return quantize_check(rows, cols, pad, true, r, f); });
    checks_.back().fp8 = true;
  }
  void embed(const char* of, int tokens, int width, int frames, int height, int wide) {
    add("sinusoid", sized(of, tokens, 256), kFloat32,
        [=](Rig& r, Fresh& f) { return sinusoid_check(tokens, 256, r, f); });
    add("activation", sized(of, 3, width), kFloat32,
        [=](Rig& r, Fresh& f) { return activation_check(3, width, r, f); });
    add("patchify, unpatchify", sized(of, height, wide), kBf16,
        [=](Rig& r, Fresh& f) { return patchify_check(frames, height, wide, r, f); });
    add("add", sized(of, tokens, width), kBf16,
        [=](Rig& r, Fresh& f) { return add_check(int64_t{tokens} * width, r, f); });
  }
  void sampler(const char* of, int video, int action, int steps) {
    add("sampler_step", std::string(of) + " " + std::to_string(video) + " and " + std::to_string(action), 1e-5,
        [=](Rig& r, Fresh& f) { return Schedule({video, action}, steps, r, f).run(); });
  }
  std::vector<Check> take() { return std::move(checks_); }

 private:
  std::vector<Check> checks_;
};

}  // namespace

std::vector<Check> row_checks(Sizes sizes) {
  List l;
  l.add(LnCase{"ragged", 7, 333});
  l.add(LnCase{"ragged", 7, 336, 8, false, true});
  l.add(LnCase{"ragged", 5, 130, 0, true, true, false});
  l.add(LnCase{"ragged", 7, 336, 8, false, false, true, true});
  l.add(LnCase{"ragged", 7, 336, 8, false, false, true, true, true});
  l.add(QkCase{"ragged", 7, 3, 6, 64, false, 2, 3});
  l.add(QkCase{"ragged", 7, 2, 64, 64, false, 2, 3, true});
  l.add(QkCase{"ragged", 5, 2, 64, 64, true});
  l.quantize("ragged", 5, 2104, 16);
  l.add(PlainCase{"ragged", 5, 71, 37, true, true, Act::silu});
  l.add(PlainCase{"ragged", 17, 65, 33, false, false, Act::gelu_tanh, true});
  l.embed("ragged", 9, 36, 2, 4, 6);
  l.sampler("ragged", 36, 7, 5);
  if (sizes == Sizes::tiny) return l.take();
  for (const auto& [of, rows, cols] : {std::tuple{"14B", 1785, 5120}, {"5B", 125, 3072}, {"bundled", 29, 128}}) {
    l.add(LnCase{of, rows, cols});
    l.add(LnCase{of, rows, cols, 8, false, true, false});
    l.add(LnCase{of, rows, cols, 0, true, true, false});
    l.add(LnCase{of, rows, cols, 0, false, false, true, true});
    l.add(LnCase{of, rows, cols, 0, false, false, true, true, true});
    l.quantize(of, rows, cols, 0);
  }
  l.add(LnCase{"ragged", 33, 1000}), l.add(LnCase{"ragged", 33, 8192}), l.add(LnCase{"ragged", 33, 7001});
  l.add(QkCase{"14B", 1785, 40, 128, 128, false, 0, 1760});
  l.add(QkCase{"14B", 1785, 40, 128, 128, false, 0, 1760, true});
  l.add(QkCase{"5B", 125, 24, 128, 128, false, 0, 100});
  l.add(QkCase{"bundled", 29, 2, 64, 64, false, 0, 12});
  l.add(QkCase{"per head", 300, 40, 128, 128, true, 5, 200});
  l.add(QkCase{"padded", 300, 5, 48, 64, true, 5, 200});
  l.quantize("14B", 1785, 13824, 0);
  l.add(PlainCase{"14B time", 3, 30720, 5120, true, true, Act::none});
  l.add(PlainCase{"14B state", 1, 5120, 64, true, false, Act::relu});
  l.add(PlainCase{"14B action", 24, 5120, 1024, true, false, Act::silu});
  l.add(PlainCase{"14B head", 1760, 64, 5120, false, true, Act::none});
  l.add(PlainCase{"ragged", 33, 333, 777, false, true, Act::gelu_erf});
  l.embed("14B", 1785, 5120, 2, 44, 80);
  l.embed("bundled", 29, 128, 2, 4, 6);
  // few steps: a product of many random ones may lose more digits than the kernel does
  l.sampler("14B", 16 * 2 * 44 * 80, 24 * 32, 5);
  l.sampler("bundled", 16 * 2 * 4 * 6, 16 * 4, 4);
  return l.take();
}

}  // namespace device_check
