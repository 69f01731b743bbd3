#include "flow/denoiser.h"

#include <array>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr size_t kMostBuffers = 96;

std::string mib(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

// Keys and values are most of what a session takes: says before the first is allocated what they need and what would
// do.
void check_room(const DreamZero& model, int branch_count) {
  const std::optional<size_t> free = model.backend().free_bytes();
  if (!free) return;
  const DitConfig& c = model.config();
  const auto bytes = [&](int64_t rows) {
    return 2 * static_cast<size_t>(c.num_layers) * model.backend().key_bytes(rows, c.num_heads, c.head_dim());
  };
  const size_t branches = static_cast<size_t>(branch_count), frame = bytes(c.frame_seqlen),
               context = branches * bytes(c.text_len) + bytes(c.clip_tokens),
               need = branches * static_cast<size_t>(c.local_attn_size) * frame + context;
  if (need <= *free) return;
  const size_t fits = *free > context ? (*free - context) / (branches * frame) : 0;
  throw DeviceError("Denoiser: out of memory on the device: keys and values need " + mib(need) + " (" +
                    std::to_string(c.local_attn_size) + " latent frames of " + mib(frame) + " in " +
                    std::to_string(branches) + " guidance branches, " + mib(context) + " for prompt and image), " +
                    mib(*free) + " are free beside the weights; a local_attn_size of " + std::to_string(fits) +
                    " fits" + (branches > 1 ? ", or a guidance of 1, which needs half" : ""));
}

}  // namespace

Denoiser::Denoiser(std::shared_ptr<const DreamZero> model, int branches) : model_(std::move(model)) {
  check_room(*model_, branches);
  const DitConfig& c = model_->config();
  const Memory::Size size{c.num_layers, c.dim, c.frame_seqlen, static_cast<int>(c.local_attn_size), c.num_heads};
  const ContextView::Group image = c.has_clip() ? group(c.clip_tokens) : ContextView::Group{};  // all branches share it
  for (int i = 0; i < branches; ++i) {
    memory_.emplace_back(size, model_->shared_backend());
    groups_.push_back(group(c.text_len));
    if (c.has_clip()) groups_.push_back(image);
  }
}

// Room for a context group's K and V of all layers.
ContextView::Group Denoiser::group(int64_t rows) {
  const DitConfig& c = model_->config();
  ContextView::Group group{.rows = rows};
  for (float** list : {&group.k, &group.v}) {
    context_.push_back(model_->backend().allocate_keys(c.num_layers * rows, c.num_heads, c.head_dim()));
    *list = context_.back().get();
  }
  return group;
}

ContextView Denoiser::context(int branch) const {
  const size_t n = groups_.size() / memory_.size();
  return {std::span(groups_).subspan(static_cast<size_t>(branch) * n, n), static_cast<int64_t>(n)};
}

float* Denoiser::workspace(const Program& program) {
  if (workspace_floats_ < program.workspace_floats()) {
    workspace_.reset();  // before the larger one is asked for
    workspace_floats_ = 0;
    workspace_ = model_->backend().allocate_workspace(program.workspace_floats());
    workspace_floats_ = program.workspace_floats();
  }
  return workspace_.get();
}

void Denoiser::set_text(int branch, const float* text) {
  const ContextView view = context(branch);
  float* const external[] = {const_cast<float*>(text)};
  model_->text_context().run(
      {.external = external, .context = &view, .workspace = workspace(model_->text_context()), .tap = tap_});
}

void Denoiser::set_image(const float* image) {
  const ContextView view = context(0);  // all branches share the storage
  float* const external[] = {const_cast<float*>(image)};
  model_->image_context().run(
      {.external = external, .context = &view, .workspace = workspace(model_->image_context()), .tap = tap_});
}

void Denoiser::clear_memory() {
  for (Memory& m : memory_) m.clear();
}

void Denoiser::prepare(DreamZero::Pass pass, int frames, int start) {
  workspace(*model_->program(pass, frames, start).program);
}

void Denoiser::run(const DitProgram& p, int branch, const Arrays& arrays, const MemoryView& memory) {
  std::array<float*, kMostBuffers> external{};
  if (p.buffers > external.size()) throw Error("Denoiser: a plan has more buffers than can be bound");
  const auto bind = [&](BufferId id, const float* data) {
    if (id == kNone) return;
    if (!data) throw InputError("Denoiser: an input of the pass is missing");
    external[static_cast<size_t>(id)] = const_cast<float*>(data);
  };
  bind(p.x, arrays.x), bind(p.y, arrays.y), bind(p.velocity, arrays.velocity), bind(p.timesteps, arrays.timesteps);
  bind(p.clean, arrays.clean), bind(p.clean_y, arrays.clean_y);
  bind(p.action, arrays.action), bind(p.action_velocity, arrays.action_velocity), bind(p.state, arrays.state);
  const ContextView view = context(branch);
  p.program->run({.external = std::span(external).first(p.buffers),
                  .memory = &memory,
                  .context = &view,
                  .workspace = workspace(*p.program),
                  .tap = tap_});
  ++forwards_;
}

void Denoiser::prefill(int branch, int frames, int start, const float* x, const float* y, float* velocity) {
  static constexpr float kClean = 0.0f;
  const auto pass = velocity ? DreamZero::Pass::prefill_head : DreamZero::Pass::prefill;
  const DitProgram& p = model_->program(pass, frames, start);
  const MemoryView view = memory(branch).store(start, frames, Origin::observed);
  run(p, branch, {.x = x, .y = y, .timesteps = &kClean, .velocity = velocity}, view);
}

void Denoiser::denoise(int branch, int frames, int start, const Arrays& arrays) {
  const DitProgram& p = model_->program(DreamZero::Pass::denoise, frames, start);
  run(p, branch, arrays, memory(branch).read(kept(frames)));
}

void Denoiser::observe_denoise(int branch, const ObservedFrames& observed, int frames, int start, Arrays arrays) {
  if (!fits_one_pass(observed, frames, start)) throw InputError("Denoiser: these frames do not fit one pass");
  const DitProgram& p = model_->program(DreamZero::Pass::observe_denoise, frames, start);
  arrays.clean = observed.x, arrays.clean_y = observed.y;
  run(p, branch, arrays, memory(branch).store(observed.start, observed.frames, Origin::observed));
}

bool Denoiser::fits_one_pass(const ObservedFrames& observed, int frames, int start) const {
  return observed.frames == DreamZero::observed_before(frames, start) && observed.start + observed.frames == start &&
         start <= kept(frames);
}

// Frames of the window that a pass over `frames` new ones can look back at.
int Denoiser::kept(int frames) const { return static_cast<int>(model_->config().local_attn_size) - frames; }

ChunkPass Denoiser::pass(DreamZero::Pass kind, int frames, int start) const {
  const DitProgram& p = model_->program(kind, frames, start);
  const bool clean = kind == DreamZero::Pass::prefill || kind == DreamZero::Pass::prefill_head;
  return {.program = p.program.get(),
          .clean = clean ? p.x : p.clean,
          .clean_condition = clean ? p.y : p.clean_y,
          .noisy = clean ? kNone : p.x,
          .condition = clean ? kNone : p.y,
          .action = p.action,
          .state = p.state,
          .timesteps = p.timesteps,
          .velocity = p.velocity,
          .action_velocity = p.action_velocity};
}

MemoryView Denoiser::store(const ObservedFrames& observed) {
  MemoryView view;
  for (Memory& memory : memory_) view = memory.store(observed.start, observed.frames, Origin::observed);
  return view;
}

MemoryView Denoiser::read(int frames) const { return memory_.front().read(kept(frames)); }

}  // namespace wam
