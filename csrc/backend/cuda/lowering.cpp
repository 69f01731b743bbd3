#include "backend/cuda/lowering.h"

#include <algorithm>
#include <cmath>

#include "wamcore/error.h"

namespace wam::cuda {
namespace {

kc::Act act_of(kernels::Activation a) {
  switch (a) {
    case kernels::Activation::none:
      return kc::Act::none;
    case kernels::Activation::gelu_tanh:
      return kc::Act::gelu_tanh;
    case kernels::Activation::gelu_erf:
      return kc::Act::gelu_erf;
    case kernels::Activation::silu:
      return kc::Act::silu;
    case kernels::Activation::relu:
      return kc::Act::relu;
  }
  return kc::Act::none;
}

int32_t small(int64_t n) { return static_cast<int32_t>(n); }

// The segments of a span's keys: everything in memory is up to kMemoryRuns runs, each range of this pass one.
constexpr int kMemoryRuns = 3;
int segments_of(const QuerySpan& span) {
  int count = 0;
  for (const KeyRange& range : span.keys) count += range.memory ? kMemoryRuns : 1;
  return count;
}

int64_t seen_keys(const QuerySpan& span, const MemoryView* memory) {
  int64_t rows = 0;
  for (const KeyRange& range : span.keys) {
    if (!range.memory) rows += range.rows;
    for (int i = 0; range.memory && memory && i < memory->reads; ++i) rows += memory->read[i].rows;
  }
  return rows;
}

}  // namespace

std::byte* Site::array(const CudaProgram& program, std::byte* workspace, BufferId id) const {
  const size_t at = static_cast<size_t>(id);
  if (moved[at]) return moved[at];
  const BufferSpec& spec = program.plan().buffers[at];
  const Placement::Buffer& buffer = program.place().buffers[at];
  const size_t bytes = static_cast<size_t>(spec.rows * spec.cols) * (buffer.wide ? sizeof(float) : sizeof(bf16));
  return workspace + buffer.offset * static_cast<size_t>(branches) + bytes * static_cast<size_t>(branch);
}

Lowering::Array Lowering::array(const Slice& s) const {
  const BufferSpec& spec = program_.plan().buffers[static_cast<size_t>(s.buffer)];
  const Placement::Buffer& buffer = program_.place().buffers[static_cast<size_t>(s.buffer)];
  const size_t element = buffer.wide ? sizeof(float) : sizeof(bf16);
  std::byte* base = site_ ? site_->array(program_, workspace(), s.buffer) : workspace() + buffer.offset;
  return {base + static_cast<size_t>(s.row * spec.cols + s.col) * element, buffer.wide, s.rows, s.cols, spec.cols};
}

Lowering::Array Lowering::rows_at(size_t offset, int64_t rows, int64_t cols) const {
  std::byte* base = workspace() + offset;
  if (site_) {
    const size_t bytes = static_cast<size_t>(rows * cols) * sizeof(bf16);
    base = workspace() + offset * static_cast<size_t>(site_->branches) + bytes * static_cast<size_t>(site_->branch);
  }
  return {base, false, rows, cols, cols};
}

float* Lowering::floats_at(size_t offset, int64_t rows, int64_t cols) const {
  return rows_at(offset, rows, 2 * cols).floats();
}

// Every quantised array is read by the call after the one that writes it: there is one place for all.
Lowering::Array Lowering::eight_bits(int64_t rows, int64_t cols) const {
  Array a = rows_at(program_.place().eight, rows, cols / 2);
  a.cols = a.stride = cols;
  a.scale = floats_at(program_.place().eight_scale, rows, 1);
  return a;
}

// Where a norm writes what `reader` multiplies.
Lowering::Array Lowering::normed(const Slice& z, WeightId reader) const {
  return weights_.matrix(reader).quantised ? eight_bits(z.rows, z.cols) : array(z);
}

Lowering::Array Lowering::quantised(const Array& x) {
  const Array y = eight_bits(x.rows, x.cols);
  emit(kc::QuantizeRowsParams{.x = x.narrow(),
                              .y = y.eight(),
                              .scale = y.scale,
                              .rows = small(x.rows),
                              .cols = small(x.cols),
                              .ldx = x.stride,
                              .ldy = y.stride});
  return y;
}

// `x` may still be in bf16. Matrices are in e4m3 only where this is possible: nothing else could multiply them.
void Lowering::emit_fp8(kc::GemmParams g, const Array& x, const DeviceMatrix& w) {
  const Array rows = x.scale ? x : quantised(x);
  g.x = g.w = nullptr;
  emit(kc::Fp8Product{g,
                      {.x = rows.eight(),
                       .w = w.quantised,
                       .x_scale = rows.scale,
                       .w_scale = w.scale,
                       .ldx = rows.stride,
                       .ldw = w.ld}});
}

void Lowering::seen(const std::string& label, const Array& a) {
  if (a.scale) return;
  steps_.back().seen.push_back({label, a.at, a.wide, a.rows, a.cols, a.stride});
}

// Tensor cores where types and sizes allow it, else the plain kernel; the choice depends on the plan alone.
void Lowering::product(const Product& p) {
  const bool gelu = p.act == kernels::Activation::gelu_tanh, none = p.act == kernels::Activation::none;
  if (!p.x.wide && !p.y.wide && (none || (gelu && !p.residual))) {
    kc::GemmParams g;
    g.epilogue = p.residual ? kc::GemmEpilogue::gate_residual
                 : gelu     ? kc::GemmEpilogue::bias_gelu
                            : kc::GemmEpilogue::bias;
    g.x = p.x.narrow(), g.w = p.w.data, g.bias = weights_.narrow(p.bias), g.y = p.y.narrow();
    g.m = small(p.x.rows), g.n = small(p.w.n), g.k = small(p.w.k);
    g.ldx = p.x.stride, g.ldw = p.w.ld, g.ldy = p.y.stride;
    if (p.residual) {
      g.residual = p.y.narrow(), g.ldr = p.y.stride;
      g.gate = p.gate.at ? p.gate.floats() : weights_.ones();
      g.gate_row = p.gate.at ? p.gate_row : nullptr, g.ldg = p.gate.at ? p.gate.stride : p.w.n;
      g.gate_base = p.gate_base;
    }
    if (p.w.quantised) return emit_fp8(g, p.x, p.w);
    if (kc::gemm_possible(g)) return emit(g);
  }
  if (p.w.quantised)
    throw ShapeError("CudaProgram: a matrix in e4m3 wants rows in bfloat16 and no activation but GELU");
  kc::GemmPlainParams g;
  (p.x.wide ? g.x_wide = p.x.floats() : (g.x = p.x.narrow(), nullptr));
  (p.y.wide ? g.y_wide = p.y.floats() : (g.y = p.y.narrow(), nullptr));
  g.w = p.w.data, g.bias = weights_.narrow(p.bias), g.act = act_of(p.act);
  g.m = small(p.x.rows), g.n = small(p.w.n), g.k = small(p.w.k);
  g.ldx = p.x.stride, g.ldw = p.w.ld, g.ldy = p.y.stride;
  if (p.residual) g.residual = p.y.narrow(), g.ldr = p.y.stride;
  if (p.gate.at) g.gate = p.gate.floats(), g.gate_row = p.gate_row, g.ldg = p.gate.stride, g.gate_base = p.gate_base;
  emit(g);
}

// y += gate * (x w^T + bias), the gate in group `group` of y's columns of the modulation.
void Lowering::add_gated(Product p, const Modulation& m, int group, const std::vector<int32_t>& time_row) {
  const int64_t col = group * p.y.cols;
  p.residual = true;
  p.gate = {.at = reinterpret_cast<std::byte*>(const_cast<float*>(m.row(col))), .wide = true, .stride = m.ld};
  p.gate_base = m.base(col), p.gate_row = program_.rows(time_row);
  product(p);
}

void Lowering::linear(const Array& x, const Array& y, WeightId weight, WeightId bias) {
  product({.x = x, .y = y, .w = weights_.matrix(weight), .bias = bias});
}

bool Lowering::project(const Projection& p) {
  const std::span ids(p.weights.data(), static_cast<size_t>(p.count));
  const DeviceMatrix all = weights_.joined(ids);
  kc::GemmParams g{.epilogue = kc::GemmEpilogue::qkv, .x = p.x.narrow(), .w = all.data, .m = small(p.x.rows)};
  g.n = small(all.n), g.k = small(all.k), g.ldx = p.x.stride, g.ldw = all.ld;
  g.parts = p.count, g.normed = p.normed;
  g.square = floats_at(program_.place().square, p.x.rows, p.normed * all.n / (p.count * kc::kSquareStripe));
  for (int i = 0; i < p.count; ++i) {
    const Array& to = p.to[static_cast<size_t>(i)];
    g.part[i] = to.narrow(), g.ld_part[i] = to.stride;
  }
  const bool joined = all.n && !p.x.wide && weights_.joined(std::span(p.biases.data(), ids.size()), &g.bias);
  if (joined && all.quantised && g.n % (g.parts * kc::kSquareStripe) == 0) {
    emit_fp8(g, p.x, all);
    return true;
  }
  if (joined && kc::gemm_possible(g)) {
    emit(g);
    return true;
  }
  for (size_t i = 0; i < ids.size(); ++i) linear(p.x, p.to[i], p.weights[i], p.biases[i]);
  return false;
}

// The first parts of `p` are normed ones, in the order of the projection.
void Lowering::squares(kc::QkNormRopeCacheWriteParams& p, int64_t inner, int normed) const {
  p.squares = small(inner / kc::kSquareStripe);
  const float* square = floats_at(program_.place().square, p.tokens, normed * p.squares);
  for (int i = 0; i < normed; ++i) p.part[i].square = square + i * p.squares, p.part[i].ld_square = normed * p.squares;
}

Lowering::Modulation Lowering::modulation(const Slice& s) const {
  if (const auto it = modulations_.find(s.buffer); it != modulations_.end()) return it->second;
  const Array a = array(s);
  return {.time = a.floats(), .time_cols = a.cols, .ld = a.stride};
}

// `shift` counts dim-wide column groups of the modulation; the scale is in the group after it.
void Lowering::norm(const Array& x, const Array& y, const Modulation* modulation, int shift,
                    const std::vector<int32_t>& time_row, float eps, WeightId weight, WeightId bias) {
  kc::LnModulateParams p{.y = y.scale ? nullptr : y.narrow(),
                         .y_e4m3 = y.scale ? y.eight() : nullptr,
                         .y_scale = y.scale,
                         .rows = small(x.rows),
                         .cols = small(x.cols),
                         .ldx = x.stride,
                         .ldy = y.stride,
                         .eps = eps,
                         .weight = weights_.wide(weight),
                         .bias = weights_.wide(bias)};
  if (x.wide)
    p.x_wide = x.floats();
  else
    p.x = x.narrow();
  if (modulation) {
    p.shift = modulation->row(shift * x.cols), p.shift_base = modulation->base(shift * x.cols);
    p.scale = modulation->row((shift + 1) * x.cols), p.scale_base = modulation->base((shift + 1) * x.cols);
    p.ldm = modulation->ld, p.time_row = program_.rows(time_row);
  }
  emit(p);
}

void Lowering::node(const LinearNode& n, const std::string& label) {
  product({.x = array(n.in), .y = array(n.out), .w = weights_.matrix(n.weight), .bias = n.bias, .act = n.activation});
  seen(label, array(n.out));
}

void Lowering::node(const ActivationNode& n, const std::string& label) {
  const Array in = array(n.in), out = array(n.out);
  emit(kc::ActivationParams{.x = in.floats(),
                            .y = out.floats(),
                            .rows = small(in.rows),
                            .cols = small(in.cols),
                            .ldx = in.stride,
                            .ldy = out.stride,
                            .act = act_of(n.activation)});
  seen(label, out);
}

void Lowering::node(const SinusoidNode& n, const std::string& label) {
  const Array out = array(n.out);
  const BufferSpec& t = program_.plan().buffers[static_cast<size_t>(n.t)];
  emit(kc::SinusoidParams{.t = array({n.t, 0, t.rows, 0, t.cols}).floats(),
                          .row = program_.rows(n.time_row),
                          .out = out.floats(),
                          .rows = small(out.rows),
                          .cols = small(out.cols),
                          .ldo = out.stride,
                          .cos_first = n.cos_first});
  seen(label, out);
}

void Lowering::node(const PatchifyNode& n, const std::string& label) {
  const Array out = array(n.out);
  kc::PatchifyParams p{.frames = small(n.frames),
                       .height = small(n.height),
                       .width = small(n.width),
                       .out = out.narrow(),
                       .ldo = out.stride};
  if (n.latents.size() > 2) throw ShapeError("CudaProgram: patches of more than two arrays");
  for (size_t i = 0; i < n.latents.size(); ++i) {
    const BufferSpec& spec = program_.plan().buffers[static_cast<size_t>(n.latents[i])];
    p.source[i] = array({n.latents[i], 0, spec.rows, 0, spec.cols}).floats();
    p.channels[i] = small(spec.rows);
  }
  emit(p);
  seen(label, out);
}

void Lowering::node(const UnpatchifyNode& n, const std::string&) {
  const BufferSpec& spec = program_.plan().buffers[static_cast<size_t>(n.latents)];
  const Array in = array(n.in);
  emit(kc::UnpatchifyParams{.x = in.floats(),
                            .out = array({n.latents, 0, spec.rows, 0, spec.cols}).floats(),
                            .channels = small(spec.rows),
                            .frames = small(n.frames),
                            .height = small(n.height),
                            .width = small(n.width),
                            .ldx = in.stride});
}

// No launch: whoever reads the sum adds it up, in float32 as this would.
void Lowering::node(const ModulationNode& n, const std::string&) {
  const Array time = array(n.time);
  modulations_[n.out.buffer] = {
      .time = time.floats(), .time_cols = time.cols, .ld = time.stride, .table = weights_.wide(n.table)};
}

void Lowering::node(const NormNode& n, const std::string& label) {
  const Array in = array(n.in), out = array(n.out);
  if (n.modulation.buffer == kNone) {
    norm(in, out, nullptr, 0, {}, n.eps, n.weight, n.bias);
  } else {
    if (n.scale != n.shift + 1) throw ShapeError("CudaProgram: a norm's scale must follow its shift");
    const Modulation m = modulation(n.modulation);
    norm(in, out, &m, n.shift, n.time_row, n.eps, n.weight, n.bias);
  }
  seen(label, out);
}

kc::AttentionParams attention_shape(int64_t rows, int64_t heads, int64_t pitch) {
  kc::AttentionParams p{.rows = small(rows), .heads = small(heads), .head_dim = small(pitch), .group_count = 1};
  p.groups[0].rows = small(rows);
  return p;
}

size_t attention_calls(const SelfAttentionNode& n) {
  return (n.queries.size() + kc::kMaxQueryGroups - 1) / kc::kMaxQueryGroups;
}

kc::CacheSlots cache_slots(const MemoryView& memory) {
  kc::CacheSlots slots;
  for (int i = 0; i < memory.writes; ++i) {
    slots.begin[i] = small(memory.write[i].begin);
    slots.rows[i] = small(memory.write[i].rows);
  }
  return slots;
}

void fill_live(const Plan& plan, const MemoryView* memory, kc::LiveRows* tables) {
  size_t call = 0;
  for (const Node& any : plan.nodes) {
    const auto* n = std::get_if<SelfAttentionNode>(&any);
    if (!n || n->kv_only) continue;
    for (size_t i = 0; i < n->queries.size(); ++i) {
      const size_t table = call + i / kc::kMaxQueryGroups, group = i % kc::kMaxQueryGroups;
      kc::LiveRows* live = tables + (table * kc::kMaxQueryGroups + group) * kc::kMaxKeySegments;
      for (const KeyRange& range : n->queries[i].keys) {
        if (!range.memory) {
          *live++ = {small(range.begin), small(range.rows)};
          continue;
        }
        for (int r = 0; r < kMemoryRuns; ++r)
          *live++ = memory && r < memory->reads
                        ? kc::LiveRows{small(memory->read[r].begin), small(memory->read[r].rows)}
                        : kc::LiveRows{0, 0};
      }
    }
    call += attention_calls(*n);
  }
}

// All query spans of a layer, a few at a time; the rows of the memory that they see come from the uploaded table.
void Lowering::attend(const SelfAttentionNode& n, const Array& q, const Array& k, const Array& v, const Array& out) {
  const int64_t pitch = head_pitch(n.head_dim), ld = n.heads * pitch;
  const auto* tables = reinterpret_cast<const kc::LiveRows*>(live_tables());
  for (size_t first = 0; first < n.queries.size(); first += kc::kMaxQueryGroups) {
    kc::AttentionParams p;
    // the rows of these spans alone: a call's groups hold all of its rows
    const QuerySpan& last = n.queries[std::min(first + kc::kMaxQueryGroups, n.queries.size()) - 1];
    const int64_t begin = n.queries[first].begin;
    p.q = q.narrow() + begin * ld, p.out = out.narrow() + begin * ld, p.ldq = ld, p.ldo = ld;
    p.rows = small(last.begin + last.rows - begin), p.heads = small(n.heads), p.head_dim = small(pitch);
    p.scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim));
    p.live = tables + next_live_++ * kc::kMaxQueryGroups * kc::kMaxKeySegments;
    int64_t keys = 0;
    for (size_t i = first; i < n.queries.size() && i < first + kc::kMaxQueryGroups; ++i) {
      const QuerySpan& span = n.queries[i];
      keys = std::max(keys, seen_keys(span, b_.memory));
      if (segments_of(span) > kc::kMaxKeySegments)
        throw ShapeError("CudaProgram: a query span sees keys in " + std::to_string(segments_of(span)) +
                         " places, the attention kernel takes " + std::to_string(kc::kMaxKeySegments));
      kc::QueryGroup& group = p.groups[p.group_count++];
      group.first_row = small(span.begin - begin), group.rows = small(span.rows);
      const size_t layer = static_cast<size_t>(n.layer);
      for (const KeyRange& range : span.keys)
        for (int r = 0; r < (range.memory ? kMemoryRuns : 1); ++r) {
          kc::KeySegment& segment = group.segments[group.segment_count++];
          segment.ld = ld;
          segment.buffer_rows = small(range.memory && b_.memory ? b_.memory->capacity : k.rows);
          segment.k = range.memory && b_.memory ? reinterpret_cast<const bf16*>(b_.memory->k[layer]) : k.narrow();
          segment.v = range.memory && b_.memory ? reinterpret_cast<const bf16*>(b_.memory->v[layer]) : v.narrow();
        }
    }
    divide(p, keys);
    emit(p);
  }
}

// Parts of the keys, where blocks are too few for the device. The number is chosen once, for as many keys as are seen
// when the list is made: another number is as right, and a little slower.
void Lowering::divide(kc::AttentionParams& p, int64_t keys) const {
  const Placement& place = program_.place();
  p.splits = std::min(weights_.device().attention_splits(p, keys), place.splits);
  if (p.splits == 1) return;
  p.split_out = floats_at(place.split_out, int64_t{p.splits} * p.rows, p.heads * p.head_dim);
  p.split_lse = floats_at(place.split_lse, int64_t{p.splits} * p.rows, p.heads);
}

void Lowering::node(const SelfAttentionNode& n, const std::string& label) {
  const int64_t inner = n.heads * n.head_dim, pitch = head_pitch(n.head_dim), wide = n.heads * pitch;
  const int64_t half = n.head_dim / 2, tokens = array(n.q).rows;
  const Placement& place = program_.place();
  const Array raw[3] = {array(n.q), array(n.k), array(n.v)};
  const bool pad = pitch != n.head_dim;
  const Array q = pad ? rows_at(place.q, tokens, wide) : raw[0], k = pad ? rows_at(place.k, tokens, wide) : raw[1],
              v = pad ? rows_at(place.v, tokens, wide) : raw[2],
              out = pad ? rows_at(place.out, tokens, wide) : array(n.out);
  const auto part_of = [](const Array& a, int64_t begin, int64_t rows) {
    Array part = a;
    part.at += static_cast<size_t>(begin * a.stride) * sizeof(bf16);
    part.rows = rows;
    return part;
  };
  for (const SelfAttentionPart& part : n.parts) {
    const Array hidden = array(part.hidden), z = normed(part.z, part.wk);
    const Modulation m = modulation(part.modulation);
    norm(hidden, z, &m, 0, part.time_row, n.eps);
    seen(label + ".norm1", z);
    kc::QkNormRopeCacheWriteParams p;
    p.tokens = small(hidden.rows), p.heads = small(n.heads), p.head_dim = small(n.head_dim), p.pitch = small(pitch);
    p.eps = n.eps;
    if (n.rope != kNone) {
      p.cos = program_.rope(n.rope, false) + part.begin * half;
      p.sin = program_.rope(n.rope, true) + part.begin * half;
    }
    const size_t layer = static_cast<size_t>(n.layer);
    const bool stores = n.store_rows > 0 && b_.memory;
    if (stores) {
      p.slots = reinterpret_cast<const kc::CacheSlots*>(slots());
      p.store_begin = small(n.store_begin - part.begin), p.store_rows = small(n.store_rows);
    }
    const auto add = [&](const Array& from, const Array& to, float* cache, WeightId norm_weight, bool rope) {
      p.part[p.parts++] = {.x = part_of(from, part.begin, hidden.rows).narrow(),
                           .y = part_of(to, part.begin, hidden.rows).narrow(),
                           .cache = reinterpret_cast<bf16*>(cache),
                           .norm = weights_.wide(norm_weight),
                           .ldx = inner,
                           .rope = rope};
    };
    const Array to[3] = {part_of(raw[0], part.begin, hidden.rows), part_of(raw[1], part.begin, hidden.rows),
                         part_of(raw[2], part.begin, hidden.rows)};
    Projection all{.x = z,
                   .weights = {part.wq, part.wk, part.wv},
                   .biases = {part.bq, part.bk, part.bv},
                   .to = {to[0], to[1], to[2]},
                   .count = 3,
                   .normed = 2};
    if (n.kv_only)
      all = {.x = z,
             .weights = {part.wk, part.wv},
             .biases = {part.bk, part.bv},
             .to = {to[1], to[2]},
             .count = 2,
             .normed = 1};
    const bool together = project(all);
    if (!n.kv_only) {
      seen(label + ".q", to[0]);
      add(raw[0], q, nullptr, part.norm_q, true);
    }
    seen(label + ".k", to[1]);
    add(raw[1], k, stores ? b_.memory->k[layer] : nullptr, part.norm_k, true);
    add(raw[2], v, stores ? b_.memory->v[layer] : nullptr, kNone, false);
    if (together) squares(p, inner, all.normed);
    emit(p);
  }
  if (n.kv_only) return;
  attend(n, q, k, v, out);
  for (const SelfAttentionPart& part : n.parts) {
    const Array hidden = array(part.hidden);
    add_gated({.x = part_of(out, part.begin, hidden.rows),
               .y = hidden,
               .w = weights_.spread(part.wo, n.heads, n.head_dim, pitch),
               .bias = part.bo},
              modulation(part.modulation), 2, part.time_row);
    seen(label, hidden);
  }
}

void Lowering::node(const CrossAttentionNode& n, const std::string& label) {
  const int64_t inner = n.heads * n.head_dim, pitch = head_pitch(n.head_dim), wide = n.heads * pitch;
  const Placement& place = program_.place();
  const Array hidden = array(n.hidden), z = normed(n.z, n.wq), raw = array(n.q);
  const bool pad = pitch != n.head_dim;
  const Array q = pad ? rows_at(place.q, raw.rows, wide) : raw,
              out = pad ? rows_at(place.out, raw.rows, wide) : array(n.out);
  norm(hidden, z, nullptr, 0, {}, n.eps, n.norm_weight, n.norm_bias);
  seen(label + ".norm3", z);
  const bool together = project({.x = z, .weights = {n.wq}, .biases = {n.bq}, .to = {raw}, .count = 1, .normed = 1});
  kc::QkNormRopeCacheWriteParams p;
  p.tokens = small(raw.rows), p.heads = small(n.heads), p.head_dim = small(n.head_dim), p.pitch = small(pitch);
  p.parts = 1, p.eps = n.eps;
  p.part[0] = {.x = raw.narrow(), .y = q.narrow(), .norm = weights_.wide(n.norm_q), .ldx = inner};
  if (together) squares(p, inner, 1);
  emit(p);
  for (size_t i = 0; i < n.groups.size(); ++i) {
    const auto& group = b_.context->groups[static_cast<size_t>(n.expert * b_.context->groups_per_expert + n.groups[i])];
    const int64_t offset = n.layer * group.rows * wide;
    kc::AttentionParams a = attention_shape(raw.rows, n.heads, pitch);
    a.q = q.narrow(), a.out = out.narrow(), a.ldq = wide, a.ldo = wide;
    a.scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim));
    a.add = i > 0;  // its softmax is another one
    a.groups[0].segment_count = 1;
    kc::KeySegment& s = a.groups[0].segments[0];
    s.k = reinterpret_cast<const bf16*>(group.k) + offset, s.v = reinterpret_cast<const bf16*>(group.v) + offset;
    s.ld = wide, s.rows = s.buffer_rows = small(group.rows);
    divide(a, group.rows);
    emit(a);
  }
  product(
      {.x = out, .y = hidden, .w = weights_.spread(n.wo, n.heads, n.head_dim, pitch), .bias = n.bo, .residual = true});
  seen(label, hidden);
}

void Lowering::node(const ContextKvNode& n, const std::string&) {
  const int64_t inner = n.heads * n.head_dim, pitch = head_pitch(n.head_dim), wide = n.heads * pitch;
  const auto& group = b_.context->groups[static_cast<size_t>(n.expert * b_.context->groups_per_expert + n.group)];
  const Array in = array(n.in);
  const Array k = rows_at(program_.place().raw_k, in.rows, inner), v = rows_at(program_.place().raw_v, in.rows, inner);
  const int64_t offset = (n.layer * group.rows + n.row) * wide;
  const bool together =
      project({.x = in, .weights = {n.wk, n.wv}, .biases = {n.bk, n.bv}, .to = {k, v}, .count = 2, .normed = 1});
  kc::QkNormRopeCacheWriteParams p;
  p.tokens = small(in.rows), p.heads = small(n.heads), p.head_dim = small(n.head_dim), p.pitch = small(pitch);
  p.parts = 2, p.eps = n.eps;
  p.part[0] = {
      .x = k.narrow(), .y = reinterpret_cast<bf16*>(group.k) + offset, .norm = weights_.wide(n.norm_k), .ldx = inner};
  p.part[1] = {.x = v.narrow(), .y = reinterpret_cast<bf16*>(group.v) + offset, .ldx = inner};
  if (together) squares(p, inner, 1);
  emit(p);
}

void Lowering::node(const FeedForwardNode& n, const std::string& label) {
  const Array hidden = array(n.hidden), z = normed(n.z, n.w1), up = array(n.up);
  const Modulation m = modulation(n.modulation);
  norm(hidden, z, &m, 3, n.time_row, n.eps);
  seen(label + ".norm2", z);
  product({.x = z, .y = up, .w = weights_.matrix(n.w1), .bias = n.b1, .act = kernels::Activation::gelu_tanh});
  seen(label + ".gelu", up);
  add_gated({.x = up, .y = hidden, .w = weights_.matrix(n.w2), .bias = n.b2}, m, 5, n.time_row);
  seen(label, hidden);
}

}  // namespace wam::cuda
