#include "model/families/dreamzero.h"

#include "wamcore/error.h"

namespace wam {
namespace {

std::vector<ContextSpec> contexts(const DitConfig& c) {
  std::vector<ContextSpec> out = {{.suffix = "", .rows = c.text_len, .in_features = c.text_dim}};
  if (c.has_clip()) out.push_back({.suffix = "_img", .rows = c.clip_tokens, .in_features = c.clip_dim});
  return out;
}

ExpertSpec expert(const DitConfig& c) {
  return {.dim = c.dim,
          .heads = c.num_heads,
          .head_dim = c.head_dim(),
          .layers = c.num_layers,
          .ffn_dim = c.ffn_dim,
          .freq_dim = c.freq_dim,
          .mlp_dim = c.hidden_size,
          .eps = static_cast<float>(c.eps)};
}

BufferId find(const Plan& plan, const std::string& name) {
  for (size_t i = 0; i < plan.buffers.size(); ++i)
    if (plan.buffers[i].name == name) return static_cast<BufferId>(i);
  return kNone;
}

}  // namespace

DreamZero::DreamZero(DitConfig config, Grid2 grid, std::string prefix)
    : config_(std::move(config)),
      grid_(grid),
      prefix_(std::move(prefix)),
      planner_({expert(config_)}, contexts(config_), table_) {
  if (grid.height % 2 || grid.width % 2 || grid.height * grid.width / 4 != config_.frame_seqlen)
    throw ConfigError("DreamZero: frame_seqlen " + std::to_string(config_.frame_seqlen) +
                      " wants as many 2 x 2 patches, " + "but the latent grid is " + std::to_string(grid.height) +
                      " x " + std::to_string(grid.width));
  planner_.key = [this](const std::string& k) { return prefix_ + k; };
  // One plan of each kind names every weight there is.
  planner_.forward(layout(Pass::denoise, static_cast<int>(config_.num_frame_per_block), 1));
  planner_.text_context(kText);
  if (config_.has_clip()) planner_.image_context(kImage);
}

void DreamZero::load(std::shared_ptr<Backend> backend, const WeightSource& source, Precision wanted) {
  backend_ = std::move(backend);
  packed_ = backend_->load(table_, source, wanted);
  text_ = compile(planner_.text_context(kText));
  if (config_.has_clip()) image_ = compile(planner_.image_context(kImage));
}

const DitProgram& DreamZero::program(Pass pass, int frames, int start) const {
  const std::lock_guard lock(mutex_);
  const auto [it, fresh] = programs_.try_emplace({pass, frames, start});
  DitProgram& p = it->second;
  if (!fresh) return p;
  Plan plan = planner_.forward(layout(pass, frames, start));
  p.buffers = plan.buffers.size();
  p.x = find(plan, "video.in"), p.y = find(plan, "video.cond"), p.velocity = find(plan, "video.out");
  p.clean = find(plan, "clean.in"), p.clean_y = find(plan, "clean.cond");
  p.timesteps = find(plan, "timesteps"), p.state = find(plan, "state.in");
  p.action = find(plan, "action.in"), p.action_velocity = find(plan, "action.out");
  p.program = compile(std::move(plan));
  return p;
}

Coords DreamZero::video_coords(int frames, int start) const {
  const int64_t side = 2 * (config_.head_dim() / 6);  // rows and columns; time takes what is left
  Coords c{.split = {config_.head_dim() - 2 * side, side, side}, .position = {}};
  for (int f = 0; f < frames; ++f)
    for (int64_t y = 0; y < grid_.height / 2; ++y)
      for (int64_t x = 0; x < grid_.width / 2; ++x)
        for (const int64_t axis : {int64_t{start} + f, y, x}) c.position.push_back(static_cast<double>(axis));
  return c;
}

Coords DreamZero::register_coords(int64_t count, int64_t first) const {
  Coords c{.split = {config_.head_dim()}, .position = {}};
  for (int64_t i = 0; i < count; ++i) c.position.push_back(static_cast<double>(first + i));
  return c;
}

Segment DreamZero::video_segment(const std::string& name, int frames, int start) const {
  Segment s{.name = name,
            .modality = Modality::video,
            .tokens = frames * config_.frame_seqlen,
            .entry = Entry::patch,
            .in_features = config_.in_dim - config_.cond_channels(),
            .cond_channels = config_.cond_channels(),
            .exit = Exit::adaln_linear,
            .out_features = config_.out_dim,
            .grid = {frames, grid_.height, grid_.width},
            .coords = video_coords(frames, start)};
  return s;
}

Segment DreamZero::action_segment(const std::string& name, int64_t count, int64_t first) const {
  return {.name = name,
          .modality = Modality::action,
          .tokens = count,
          .entry = Entry::action_mlp,
          .in_features = config_.action_dim,
          .exit = Exit::mlp,
          .out_features = config_.action_dim,
          .coords = register_coords(count, first)};
}

Segment DreamZero::state_segment(const std::string& name, int64_t count, int64_t first) const {
  return {.name = name,
          .modality = Modality::state,
          .tokens = count,
          .entry = Entry::state_mlp,
          .in_features = config_.max_state_dim,
          .exit = Exit::none,
          .coords = register_coords(count, first)};
}

Layout DreamZero::layout(Pass pass, int frames, int start) const {
  Layout out;
  if (config_.has_clip()) out.groups = {kText, kImage};
  const bool observes = pass == Pass::observe_denoise;
  if (observes) {
    const int seen = observed_before(frames, start);
    out.segments.push_back(video_segment("clean", seen, start - seen));
    Segment& clean = out.segments.back();
    clean.clean = clean.store = true, clean.exit = Exit::none;
    clean.time_row.assign(static_cast<size_t>(clean.tokens), 0);
  }
  out.segments.push_back(video_segment("video", frames, start));
  Segment& video = out.segments.back();
  if (pass == Pass::prefill || pass == Pass::prefill_head) {
    out.name = "prefill";
    out.want = pass == Pass::prefill ? Want::kv : Want::head;
    video.clean = video.store = true;
    video.time_row.assign(static_cast<size_t>(video.tokens), 0);
    out.attend = AttendTable(1);
    out.attend.allow(0, 0);
    out.attend.allow_memory(0);
    return out;
  }
  out.name = observes ? "observe_denoise" : "denoise";
  const int first = observes ? 1 : 0;  // segment and time row of the noisy frames
  const int64_t actions = config_.num_action_per_block, states = config_.num_state_per_block;
  const bool each = config_.trained_prefix > 0;  // every action has a time of its own
  out.time_rows = first + frames + (each ? actions : 1);
  for (int f = 0; f < frames; ++f)
    video.time_row.insert(video.time_row.end(), static_cast<size_t>(config_.frame_seqlen), first + f);
  const int64_t block = (start - 1) / config_.num_frame_per_block;
  out.segments.push_back(action_segment("action", config_.num_action_per_block, block * config_.num_action_per_block));
  out.segments.push_back(state_segment("state", config_.num_state_per_block, block * config_.num_state_per_block));
  const size_t count = out.segments.size(), noisy = static_cast<size_t>(first);
  // the clean state token carries the time of the first action that it stands before
  const auto time_of = [&](int64_t action) { return static_cast<int32_t>(first + frames + (each ? action : 0)); };
  for (int64_t i = 0; i < actions; ++i) out.segments[noisy + 1].time_row.push_back(time_of(i));
  for (int64_t i = 0; i < states; ++i) out.segments[noisy + 2].time_row.push_back(time_of(i * (actions / states)));
  out.segments.back().clean = true;
  out.attend = AttendTable(count);
  for (size_t query = 0; query < count; ++query) {
    // Observed frames see the past and themselves; the others see everything.
    for (size_t key = 0; key < (query < noisy ? noisy : count); ++key) out.attend.allow(query, key);
    out.attend.allow_memory(query);
  }
  return out;
}

Layout DreamZero::training_layout(int blocks) const {
  // [clean first, clean block 1.. | noisy first, noisy block 1.. | actions 1.. | states 1..]; time row 0 is t = 0, then
  // one a noisy frame, then one an action.
  const int per = static_cast<int>(config_.num_frame_per_block), frames = 1 + blocks * per;
  const int64_t actions = config_.num_action_per_block, states = config_.num_state_per_block;
  Layout out{.name = "training", .time_rows = 1 + frames + blocks * actions};
  if (config_.has_clip()) out.groups = {kText, kImage};
  for (const bool clean : {true, false})
    for (int b = 0; b <= blocks; ++b) {
      const int first = b == 0 ? 0 : 1 + (b - 1) * per, count = b == 0 ? 1 : per;
      Segment s = video_segment((clean ? "clean" : "noisy") + std::to_string(b), count, first);
      s.clean = clean;
      if (clean) s.exit = Exit::none;
      for (int f = 0; f < count; ++f)
        s.time_row.insert(s.time_row.end(), static_cast<size_t>(config_.frame_seqlen), clean ? 0 : 1 + first + f);
      out.segments.push_back(std::move(s));
    }
  for (int b = 1; b <= blocks; ++b) {
    Segment s = action_segment("action" + std::to_string(b), actions, (b - 1) * actions);
    for (int64_t i = 0; i < actions; ++i)
      s.time_row.push_back(static_cast<int32_t>(1 + frames + (b - 1) * actions + i));
    out.segments.push_back(std::move(s));
  }
  for (int b = 1; b <= blocks; ++b) {
    Segment s = state_segment("state" + std::to_string(b), states, (b - 1) * states);
    for (int64_t i = 0; i < states; ++i)
      s.time_row.push_back(static_cast<int32_t>(1 + frames + (b - 1) * actions + i * (actions / states)));
    s.clean = true;
    out.segments.push_back(std::move(s));
  }
  const size_t n = static_cast<size_t>(blocks) + 1;
  const auto clean = [](size_t b) { return b; };
  const auto noisy = [n](size_t b) { return n + b; };
  const auto action = [n](size_t b) { return 2 * n + b - 1; };
  const auto state = [n](size_t b) { return 3 * n + b - 2; };
  out.attend = AttendTable(out.segments.size());
  out.attend.allow(clean(0), clean(0));
  out.attend.allow(noisy(0), noisy(0));
  for (size_t b = 1; b < n; ++b) {
    // Blocks whose frames still lie in the window that ends with block b; the first frame is always seen.
    const size_t kept = static_cast<size_t>(config_.local_attn_size / per), from = b > kept ? b - kept + 1 : 1;
    out.attend.allow(clean(b), clean(0));
    for (size_t k = from; k <= b; ++k) out.attend.allow(clean(b), clean(k));
    for (const size_t query : {noisy(b), action(b)}) {
      out.attend.allow(query, clean(0));
      for (size_t k = from; k < b; ++k) out.attend.allow(query, clean(k));
      for (const size_t key : {noisy(b), action(b), state(b)}) out.attend.allow(query, key);
    }
    out.attend.allow(state(b), state(b));
  }
  return out;
}

}  // namespace wam
