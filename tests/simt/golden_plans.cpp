// Single layers and the training mask through the CUDA path.
#include <algorithm>

#include "backend/cuda/program.h"
#include "flow/denoiser.h"
#include "golden.h"

namespace golden {
namespace {

// Runs a plan with its external buffers by name; those that are not given are outputs and stay in `arrays`.
struct Run {
  std::map<std::string, std::vector<float>> arrays;

  std::unique_ptr<Program> operator()(const DreamZero& model, Plan plan, const ContextView& context,
                                      const MemoryView* memory, const std::shared_ptr<float>& workspace) {
    std::vector<float*> external(plan.buffers.size(), nullptr);
    for (size_t i = 0; i < plan.buffers.size(); ++i) {
      const BufferSpec& spec = plan.buffers[i];
      if (!spec.external) continue;
      std::vector<float>& array = arrays[spec.name];
      if (!array.empty() && static_cast<int64_t>(array.size()) != spec.rows * spec.cols)
        throw ShapeError("simt_golden: " + spec.name + " has another size");
      array.resize(static_cast<size_t>(spec.rows * spec.cols));
      external[i] = array.data();
    }
    std::unique_ptr<Program> program = model.compile(std::move(plan));
    const auto room = workspace ? workspace : model.backend().allocate_workspace(program->workspace_floats());
    program->run({.external = external, .memory = memory, .context = &context, .workspace = room.get()});
    return program;
  }
};

std::vector<float> frames_of(const Tensor& t, int64_t from, int64_t count) {  // [1, channels, frames, height, width]
  const int64_t area = t.dim(3) * t.dim(4);
  std::vector<float> out;
  for (int64_t c = 0; c < t.dim(1); ++c) {
    const float* at = t.data<float>() + (c * t.dim(2) + from) * area;
    out.insert(out.end(), at, at + count * area);
  }
  return out;
}

}  // namespace

void training(const std::string& file, const std::string& weights, json::Fields fields) {
  Recorded golden(file);
  const Tensor clean = golden.get("clean_x"), noisy = golden.get("noisy_x"), y = golden.get("y");
  const auto model = transformer(fields.need("dit"), {clean.dim(3), clean.dim(4)}, weights);
  const DitConfig& c = model->config();
  const int64_t per = c.num_frame_per_block, actions = c.num_action_per_block * c.action_dim,
                states = c.num_state_per_block * c.max_state_dim;
  const int blocks = static_cast<int>((clean.dim(2) - 1) / per);
  Denoiser d(model, 1);
  d.set_text(0, golden.get("context_text_emb").data<float>());
  if (c.has_clip()) d.set_image(golden.get("clip_feature").data<float>());
  Run run;
  std::vector<float>& t = run.arrays["timesteps"] = {0.0f};
  for (const char* name : {"timestep", "timestep_action"})
    for (const float v : golden.values(name)) t.push_back(v);
  const std::vector<float> action = golden.values("action"), state = golden.values("state");
  for (int64_t b = 0; b <= blocks; ++b) {
    const int64_t from = b ? 1 + (b - 1) * per : 0, count = b ? per : 1;
    const std::string id = std::to_string(b);
    run.arrays["clean" + id + ".in"] = frames_of(clean, from, count);
    run.arrays["noisy" + id + ".in"] = frames_of(noisy, from, count);
    if (y)
      for (const char* kind : {"clean", "noisy"}) run.arrays[kind + id + ".cond"] = frames_of(y, from, count);
    if (b == 0) continue;
    run.arrays["action" + id + ".in"].assign(action.begin() + (b - 1) * actions, action.begin() + b * actions);
    run.arrays["state" + id + ".in"].assign(state.begin() + (b - 1) * states, state.begin() + b * states);
  }
  run(*model, model->planner().forward(model->training_layout(blocks)), d.context(0), nullptr, nullptr);
  const Tensor video = golden.get("video_pred");
  std::vector<float> moves;
  for (int64_t b = 0; b <= blocks; ++b) {
    const std::string id = std::to_string(b);
    const std::vector<float> want = frames_of(video, b ? 1 + (b - 1) * per : 0, b ? per : 1);
    Tensor block({static_cast<int64_t>(want.size())});
    std::copy(want.begin(), want.end(), block.data<float>());
    compare("noisy" + id, run.arrays.at("noisy" + id + ".out"), block);
    if (b == 0) continue;
    const std::vector<float>& out = run.arrays.at("action" + id + ".out");
    moves.insert(moves.end(), out.begin(), out.end());
  }
  compare("action", moves, golden.get("action_pred"));
}

namespace {

// A layer with every token's time row and rotation given. Its rows come from outside here; on the device the residual
// stream lies in the workspace in bf16, so it is put there and read there.
void layer(DreamZero& model, Denoiser& d, Recorded& golden, bool registers) {
  const DitConfig& c = model.config();
  const std::vector<float> x = golden.values("x"), e0 = golden.values("e0");
  const Tensor past = golden.get("kv_cache_in");
  const int64_t extra = c.num_action_per_block + c.num_state_per_block;
  const int64_t tokens = static_cast<int64_t>(x.size()) / c.dim - (registers ? 0 : extra);
  const int frames = static_cast<int>((tokens - (registers ? extra : 0)) / c.frame_seqlen);
  const int64_t before = past.numel() / 2 / c.dim;
  Memory& memory = d.memory(0);
  memory.clear();
  const MemoryView slots = memory.store(0, static_cast<int>(before / c.frame_seqlen), Origin::observed);
  model.backend().write_keys(slots.k[0], {0, before}, c.num_heads, c.head_dim(), past.data<float>());
  model.backend().write_keys(slots.v[0], {0, before}, c.num_heads, c.head_dim(), past.data<float>() + past.numel() / 2);
  const int start = static_cast<int>(before / c.frame_seqlen);
  Layout layout = model.layout(registers ? DreamZero::Pass::denoise : DreamZero::Pass::prefill_head, frames, start);
  layout.time_rows = layout.tokens();
  for (size_t i = 0; i < layout.segments.size(); ++i)
    for (size_t token = 0; token < layout.segments[i].time_row.size(); ++token)
      layout.segments[i].time_row[token] = static_cast<int32_t>(layout.begin(i) + static_cast<int64_t>(token));
  Plan plan = model.planner().block(layout, 0);
  plan.ropes[0] = {};
  for (const char* kind : {"video", "action", "state"}) {
    if (!registers && kind != std::string("video")) continue;
    const std::vector<float> pairs = golden.values("rope_" + std::string(kind) + "_cos_sin");
    for (size_t i = 0; i < pairs.size(); i += 2)
      plan.ropes[0].cos.push_back(pairs[i]), plan.ropes[0].sin.push_back(pairs[i + 1]);
  }
  const size_t hidden = static_cast<size_t>(plan.buffer("hidden0"));
  plan.buffers[hidden].external = false;
  Run run;
  run.arrays["e0_0"].assign(e0.begin(), e0.begin() + tokens * 6 * c.dim);
  const MemoryView view = registers ? memory.read(static_cast<int>(c.local_attn_size) - frames)
                                    : memory.store(start, frames, Origin::observed);
  const auto compiled = model.compile(plan);
  const auto& program = static_cast<const cuda::CudaProgram&>(*compiled);
  const auto workspace = model.backend().allocate_workspace(program.workspace_floats());
  auto* rows = reinterpret_cast<cuda::bf16*>(reinterpret_cast<std::byte*>(workspace.get()) +
                                             program.place().buffers[hidden].offset);
  for (int64_t i = 0; i < tokens * c.dim; ++i) rows[i] = sim::to_bf16(x[static_cast<size_t>(i)]);
  run(model, plan, d.context(0), &view, workspace);
  std::vector<float> out;
  for (int64_t i = 0; i < tokens * c.dim; ++i) out.push_back(sim::to_float(rows[i]));
  compare(registers ? "y" : "y_no_register", out, golden.get(registers ? "y" : "y_no_register"));
  if (registers) return;
  std::vector<float> keys, values;
  memory.copy(0, keys, values);
  keys.insert(keys.end(), values.begin(), values.end());
  compare("kv_cache_out_no_register", keys, golden.get("kv_cache_out_no_register"));
}

}  // namespace

void block(const std::string& file, const std::string& weights, json::Fields fields) {
  Recorded golden(file);
  const json::Node config = fields.need("dit");
  const int64_t frame = read_dit_config(config).frame_seqlen;
  const auto model = transformer(config, {2, 2 * frame}, weights);  // the grid is not used: rotations are given
  Denoiser d(model, 1);
  const std::vector<float> context = golden.values("context");
  const ptrdiff_t clip = static_cast<ptrdiff_t>(model->config().clip_tokens * model->config().dim);
  for (int group = 0; group < (clip ? 2 : 1); ++group) {
    Run run;
    std::vector<float>& rows = run.arrays["rows"];
    if (group == 0)
      rows.assign(context.begin() + clip, context.end());
    else
      rows.assign(context.begin(), context.begin() + clip);
    run(*model, model->planner().embedded_context(group), d.context(0), nullptr, nullptr);
  }
  layer(*model, d, golden, /*registers=*/true);
  layer(*model, d, golden, /*registers=*/false);
}

}  // namespace golden
