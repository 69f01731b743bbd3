#include "backend/cpu_program.h"

#include <iterator>

#include "backend/cpu_layers.h"
#include "wamcore/error.h"

namespace wam {

namespace {

constexpr int64_t kAlign = 16;  // floats: every buffer starts on a cache line

// What operations of each kind of node are timed under; layers name their steps themselves.
constexpr const char* kSteps[] = {"linear",          "activation",          "timestep",    "patches",
                                  "patches",         "modulation",          "norm",        "q, k, v",
                                  "cross-attention", "keys of the context", "feed-forward"};
static_assert(std::size(kSteps) == std::variant_size_v<Node>);

// Wider heads than the kernels have room for are refused before anything runs.
void check_heads(const Plan& plan) {
  for (const Node& any : plan.nodes)
    std::visit(
        [&](const auto& n) {
          if constexpr (requires { n.head_dim; })
            if (n.head_dim < 1 || n.head_dim > kernels::kMaxHeadDim)
              throw ConfigError("CPU program '" + plan.name + "': head_dim must be 1 to " +
                                std::to_string(kernels::kMaxHeadDim) + ", got " + std::to_string(n.head_dim));
        },
        any);
}

}  // namespace

CpuProgram::CpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops)
    : plan_(std::move(plan)), weights_(std::move(weights)), ops_(ops) {
  check_heads(plan_);
  offset_.resize(plan_.buffers.size(), 0);
  for (size_t i = 0; i < plan_.buffers.size(); ++i)
    if (!plan_.buffers[i].external) offset_[i] = reserve(plan_.buffers[i].rows * plan_.buffers[i].cols);
}

int64_t CpuProgram::reserve(int64_t floats) {
  const int64_t offset = floats_;
  floats_ += (floats + kAlign - 1) / kAlign * kAlign;
  return offset;
}

void CpuProgram::run(const Bindings& b) const {
  for (size_t i = 0; i < plan_.nodes.size(); ++i) run_node(i, b);
}

void CpuProgram::run_node(size_t i, const Bindings& b) const {
  CpuOps::step(kSteps[plan_.nodes[i].index()]);
  std::visit([&](const auto& n) { node(n, plan_.labels[i], b); }, plan_.nodes[i]);
  CpuOps::step(nullptr);
}

CpuProgram::Array CpuProgram::at(const Slice& s, const Bindings& b) const {
  const BufferSpec& spec = plan_.buffers[static_cast<size_t>(s.buffer)];
  float* base =
      spec.external ? b.external[static_cast<size_t>(s.buffer)] : b.workspace + offset_[static_cast<size_t>(s.buffer)];
  return {base + s.row * spec.cols + s.col, s.rows, s.cols, spec.cols};
}

void CpuProgram::tap(const Bindings& b, const std::string& label, const Array& a, const char* part) const {
  if (b.tap) (*b.tap)(label + part, a.data, a.rows, a.cols, a.stride);  // joins strings only when somebody looks
}

void CpuProgram::node(const LinearNode& n, const std::string& label, const Bindings& b) const {
  const Array in = at(n.in, b), out = at(n.out, b);
  ops_.gemm({.x = in.data,
             .w = matrix(n.weight),
             .bias = weight(n.bias),
             .y = out.data,
             .m = out.rows,
             .n = out.cols,
             .k = in.cols,
             .ldx = in.stride,
             .ldy = out.stride,
             .activation = n.activation});
  tap(b, label, out);
}

void CpuProgram::node(const ActivationNode& n, const std::string& label, const Bindings& b) const {
  const Array in = at(n.in, b), out = at(n.out, b);
  ops_.activation({.x = in.data,
                   .y = out.data,
                   .rows = in.rows,
                   .cols = in.cols,
                   .ldx = in.stride,
                   .ldy = out.stride,
                   .activation = n.activation});
  tap(b, label, out);
}

void CpuProgram::node(const SinusoidNode& n, const std::string& label, const Bindings& b) const {
  const Array out = at(n.out, b);
  ops_.sinusoid({.t = b.external[static_cast<size_t>(n.t)],
                 .row = n.time_row.data(),
                 .out = out.data,
                 .rows = out.rows,
                 .cols = out.cols,
                 .ldo = out.stride,
                 .cos_first = n.cos_first});
  tap(b, label, out);
}

void CpuProgram::node(const PatchifyNode& n, const std::string& label, const Bindings& b) const {
  const float* sources[4];
  int64_t channels[4];
  for (size_t i = 0; i < n.latents.size(); ++i) {
    sources[i] = b.external[static_cast<size_t>(n.latents[i])];
    channels[i] = plan_.buffers[static_cast<size_t>(n.latents[i])].rows;
  }
  const Array out = at(n.out, b);
  ops_.patchify({.sources = sources,
                 .channels = channels,
                 .count = static_cast<int64_t>(n.latents.size()),
                 .frames = n.frames,
                 .height = n.height,
                 .width = n.width,
                 .out = out.data,
                 .ldo = out.stride});
  tap(b, label, out);
}

void CpuProgram::node(const UnpatchifyNode& n, const std::string&, const Bindings& b) const {
  const Array in = at(n.in, b);
  ops_.unpatchify({.x = in.data,
                   .out = b.external[static_cast<size_t>(n.latents)],
                   .channels = plan_.buffers[static_cast<size_t>(n.latents)].rows,
                   .frames = n.frames,
                   .height = n.height,
                   .width = n.width,
                   .ldx = in.stride});
}

void CpuProgram::node(const ModulationNode& n, const std::string& label, const Bindings& b) const {
  const Array time = at(n.time, b), out = at(n.out, b);
  ops_.modulation({.table = weight(n.table),
                   .time = time.data,
                   .out = out.data,
                   .rows = out.rows,
                   .cols = out.cols,
                   .time_cols = time.cols,
                   .ldt = time.stride,
                   .ldo = out.stride});
  tap(b, label, out);
}

void CpuProgram::node(const NormNode& n, const std::string& label, const Bindings& b) const {
  const Array in = at(n.in, b), out = at(n.out, b);
  kernels::LayerNormParams p{.x = in.data,
                             .y = out.data,
                             .rows = in.rows,
                             .cols = in.cols,
                             .ldx = in.stride,
                             .ldy = out.stride,
                             .eps = n.eps,
                             .weight = weight(n.weight),
                             .bias = weight(n.bias)};
  if (n.modulation.buffer != kNone) {
    const Array m = at(n.modulation, b);
    p.shift = m.data + n.shift * in.cols;
    p.scale = m.data + n.scale * in.cols;
    p.ldm = m.stride;
    p.time_row = n.time_row.data();
  }
  ops_.layer_norm(p);
  tap(b, label, out);
}

void CpuProgram::node(const FeedForwardNode& n, const std::string& label, const Bindings& b) const {
  const Array hidden = at(n.hidden, b), z = at(n.z, b), up = at(n.up, b), m = at(n.modulation, b);
  const int64_t dim = hidden.cols;
  modulated_norm(ops_, hidden, z, {m.data + 3 * dim, m.stride, n.time_row.data()}, n.eps);
  tap(b, label, z, ".norm2");
  ops_.gemm({.x = z.data,
             .w = matrix(n.w1),
             .bias = weight(n.b1),
             .y = up.data,
             .m = up.rows,
             .n = up.cols,
             .k = dim,
             .ldx = z.stride,
             .ldy = up.stride,
             .activation = kernels::Activation::gelu_tanh});
  tap(b, label, up, ".gelu");
  add_linear(ops_, up, hidden, n.w2, n.b2, {m.data + 5 * dim, m.stride, n.time_row.data()});
  tap(b, label, hidden);
}

}  // namespace wam
