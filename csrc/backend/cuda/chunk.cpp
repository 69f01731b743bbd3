#include "backend/cuda/chunk.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/branches.h"
#include "wamcore/error.h"

namespace wam::cuda {
namespace {

constexpr size_t kAlign = 256;

size_t reserve(size_t& total, size_t bytes) {
  const size_t offset = total;
  total += (bytes + kAlign - 1) / kAlign * kAlign;
  return offset;
}

const CudaProgram& program_of(const ChunkPass& pass) { return *static_cast<const CudaProgram*>(pass.program); }

size_t floats_of(const ChunkPass& pass, BufferId id) {
  if (id == kNone) return 0;
  const BufferSpec& spec = program_of(pass).plan().buffers[static_cast<size_t>(id)];
  return static_cast<size_t>(spec.rows * spec.cols);
}

size_t live_bytes(const CudaProgram& program) {
  return program.place().live_tables * kc::kMaxQueryGroups * kc::kMaxKeySegments * sizeof(kc::LiveRows);
}

// The passes of a chunk, each once a step that runs it.
std::vector<ChunkPass> passes_of(const ChunkSpec& spec) {
  std::vector<ChunkPass> out;
  if (spec.update.program) out.push_back(spec.update);
  for (const ChunkStep& step : spec.steps)
    if (step.run) out.push_back(step.pass);
  return out;
}

bool stores(const ChunkPass& pass) { return pass.clean != kNone; }

std::vector<kc::StepCoefficients> coefficients(const ChunkModality& m) {
  std::vector<kc::StepCoefficients> out(m.sigma.size(), {.moves = 0});
  const auto narrow = [](double v) { return static_cast<float>(v); };
  for (size_t i = 0; i < m.steps.size(); ++i) {
    const SolverStep& s = m.steps[i];
    out[i] = {.data_x = narrow(s.data_x),
              .data_v = narrow(s.data_v),
              .fix_x = narrow(s.fix_x),
              .fix_last = narrow(s.fix_last),
              .fix_m0 = narrow(s.fix_m0),
              .fix_m1 = narrow(s.fix_m1),
              .fix_m2 = narrow(s.fix_m2),
              .next_x = narrow(s.next_x),
              .next_m0 = narrow(s.next_m0),
              .next_m1 = narrow(s.next_m1),
              .sigma = narrow(m.sigma[i])};
  }
  return out;
}

}  // namespace

CudaChunks::CudaChunks(std::shared_ptr<Device> device, const std::vector<ChunkSpec>& specs)
    : device_(std::move(device)), tables_(*device_) {
  lay_out(specs);
  for (const ChunkSpec& spec : specs) chunks_.push_back(make(spec));
}

// Room for the largest of the chunks, allocated once: recordings keep the addresses.
void CudaChunks::lay_out(const std::vector<ChunkSpec>& specs) {
  size_t workspace = 0, stored = 0, read = 0, clean = 0, clean_condition = 0, condition = 0, state = 0, steps = 0;
  const auto grow = [](size_t& most, size_t value) { most = std::max(most, value); };
  for (const ChunkSpec& spec : specs) {
    branches_ = std::max(branches_, static_cast<int>(spec.memory.size()));
    grow(steps, spec.steps.size());
    grow(video_floats_, static_cast<size_t>(spec.video.count));
    grow(action_floats_, static_cast<size_t>(spec.action.count));
    for (const ChunkPass& pass : passes_of(spec)) {
      grow(workspace, program_of(pass).place().bytes);
      grow(stores(pass) ? stored : read, live_bytes(program_of(pass)));
      grow(clean, floats_of(pass, pass.clean)), grow(clean_condition, floats_of(pass, pass.clean_condition));
      grow(condition, floats_of(pass, pass.condition)), grow(state, floats_of(pass, pass.state));
    }
  }
  const auto floats = [&](size_t count) { return reserve(at_.bytes, count * sizeof(float)); };
  at_.step = reserve(at_.bytes, sizeof(int32_t) + sizeof(uint32_t));
  at_.slots = reserve(at_.bytes, sizeof(kc::CacheSlots));
  at_.live_stored = reserve(at_.bytes, stored), at_.live_read = reserve(at_.bytes, read);
  at_.pull = floats(steps), at_.target = floats(action_floats_), at_.weight = floats(action_floats_);
  at_.clean = floats(clean), at_.clean_condition = floats(clean_condition);
  at_.condition = floats(condition), at_.state = floats(state);
  at_.video = floats(video_floats_), at_.action = floats(action_floats_);
  staged_.resize(at_.bytes);
  const size_t video = (video_floats_ + kAlign - 1) / kAlign * kAlign, each = video + action_floats_;
  const size_t passes = std::max(workspace, kAlign) * static_cast<size_t>(branches_),
               solvers = 5 * each * sizeof(float);
  const size_t need = at_.bytes + passes + solvers, free = device_->free_bytes();
  if (need > free)
    throw DeviceError("cuda: out of memory: the workspace of a session's chunks needs " + mib(need) + ", " + mib(free) +
                      " are free beside weights, keys and values; " +
                      (branches_ > 1 ? "a guidance of 1 needs half, " : "") +
                      "a smaller local_attn_size or fewer sessions leave more");
  inputs_ = Block(*device_, at_.bytes);
  workspace_ = Block(*device_, passes);
  solver_memory_ = Block(*device_, solvers);
  for (SolverState* s : {&video_, &action_}) {
    float* base = solver_memory_.as<float>() + (s == &video_ ? 0 : 5 * video);
    const size_t count = s == &video_ ? video : action_floats_;
    s->velocity = base, s->last = base + count, s->history = base + 2 * count;
  }
}

// Where a pass finds what comes from outside of it.
Site CudaChunks::site(const ChunkPass& pass, std::byte* timesteps, int branch) {
  Site s{.moved = std::vector<std::byte*>(program_of(pass).plan().buffers.size()),
         .branch = branch,
         .branches = branches_,
         .live = inputs_.as<>(stores(pass) ? at_.live_stored : at_.live_read),
         .slots = inputs_.as<>(at_.slots)};
  const auto lies = [&](BufferId id, std::byte* at) {
    if (id != kNone) s.moved[static_cast<size_t>(id)] = at;
  };
  lies(pass.clean, inputs_.as<>(at_.clean)), lies(pass.clean_condition, inputs_.as<>(at_.clean_condition));
  lies(pass.noisy, inputs_.as<>(at_.video)), lies(pass.action, inputs_.as<>(at_.action));
  lies(pass.condition, inputs_.as<>(at_.condition)), lies(pass.state, inputs_.as<>(at_.state));
  lies(pass.timesteps, timesteps);
  return s;
}

// One branch's pass. What depends on time alone has been computed when the chunk was made.
std::vector<Call> CudaChunks::pass(const ChunkSpec& spec, const ChunkPass& pass, const std::vector<float>& timesteps,
                                   std::byte* timesteps_at, int branch) {
  const CudaProgram& program = program_of(pass);
  const Plan& plan = program.plan();
  const std::vector<std::byte*>& tables = tables_.arrays(program, pass.timesteps, timesteps);
  const std::vector<bool> of_time = time_nodes(plan, pass.timesteps);
  Site where = site(pass, timesteps_at, branch);
  const Bindings b{.memory = &spec.memory[static_cast<size_t>(branch)],
                   .context = &spec.context[static_cast<size_t>(branch)],
                   .workspace = workspace_.as<float>()};
  Lowering lowering(program, b, &where);
  size_t table = 0;
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    if (of_time[i])
      where.moved[static_cast<size_t>(written(plan.nodes[i]))] = tables[table++];
    else
      std::visit([&](const auto& n) { lowering.node(n, plan.labels[i]); }, plan.nodes[i]);
  }
  std::vector<Call> calls;
  for (Step& step : lowering.take()) calls.push_back(std::move(step.call));
  return calls;
}

// Guidance and solver update after the passes of a step.
Call CudaChunks::solve(const ChunkSpec& spec, const ChunkStep& step, const Chunk& chunk) {
  const auto velocity = [&](BufferId id, int branch) {
    return reinterpret_cast<const float*>(
        site(step.pass, nullptr, branch).array(program_of(step.pass), workspace_.as<>(), id));
  };
  const auto modality = [&](const ChunkModality& m, const SolverState& s, size_t x) {
    return kc::SamplerModality{.x = inputs_.as<float>(x),
                               .velocity = s.velocity,
                               .last = s.last,
                               .history = s.history,
                               .count = static_cast<int32_t>(m.count),
                               .area = static_cast<int32_t>(m.area),
                               .frames = static_cast<int32_t>(m.frames),
                               .held = static_cast<int32_t>(m.held)};
  };
  const size_t steps = spec.steps.size();
  kc::SamplerStepParams p{.executed = step.run,
                          .step = inputs_.as<int32_t>(at_.step),
                          .ticket = inputs_.as<uint32_t>(at_.step + sizeof(int32_t)),
                          .steps = static_cast<int32_t>(steps)};
  kc::SamplerModality &video = p.modality[0] = modality(spec.video, video_, at_.video),
                      &action = p.modality[1] = modality(spec.action, action_, at_.action);
  video.steps = chunk.constants.as<kc::StepCoefficients>();
  action.steps = video.steps + steps;
  action.pull = inputs_.as<float>(at_.pull);
  action.target = inputs_.as<float>(at_.target), action.weight = inputs_.as<float>(at_.weight);
  if (!step.run) return p;
  video.conditional = velocity(step.pass.velocity, 0);
  action.conditional = velocity(step.pass.action_velocity, 0);
  if (step.guided)
    video.unconditional = velocity(step.pass.velocity, 1), video.guidance = static_cast<float>(spec.guidance);
  return p;
}

CudaChunks::Chunk CudaChunks::make(const ChunkSpec& spec) {
  Chunk chunk;
  // Coefficients of video and actions, then the timesteps of the update and of each step.
  const std::vector<kc::StepCoefficients> video = coefficients(spec.video), action = coefficients(spec.action);
  const size_t coefficient_bytes = video.size() * sizeof(kc::StepCoefficients);
  static const std::vector<float> kClean = {0.0f};
  std::vector<float> timesteps = kClean;
  std::vector<size_t> first;
  for (const ChunkStep& step : spec.steps) {
    first.push_back(timesteps.size());
    timesteps.insert(timesteps.end(), step.timesteps.begin(), step.timesteps.end());
  }
  if (video.size() != spec.steps.size() || action.size() != spec.steps.size())
    throw ShapeError("CudaChunks: noise levels and steps differ in number");
  chunk.constants = Block(*device_, 2 * coefficient_bytes + timesteps.size() * sizeof(float));
  device_->upload(chunk.constants.as<>(), video.data(), coefficient_bytes);
  device_->upload(chunk.constants.as<>(coefficient_bytes), action.data(), coefficient_bytes);
  device_->upload(chunk.constants.as<>(2 * coefficient_bytes), timesteps.data(), timesteps.size() * sizeof(float));
  const auto time = [&](size_t at) { return chunk.constants.as<>(2 * coefficient_bytes + at * sizeof(float)); };

  std::vector<Call> calls;
  const auto run = [&](const ChunkPass& p, const std::vector<float>& t, size_t at, int branches) {
    std::vector<Call> more = pass(spec, p, t, time(at), 0);
    if (branches > 1) more = both_branches(more, pass(spec, p, t, time(at), 1));
    calls.insert(calls.end(), more.begin(), more.end());
    (stores(p) ? chunk.storing : chunk.reading) = &program_of(p);
    const auto grow = [](size_t& most, size_t value) { most = std::max(most, value); };
    grow(chunk.clean, floats_of(p, p.clean)), grow(chunk.clean_condition, floats_of(p, p.clean_condition));
    grow(chunk.condition, floats_of(p, p.condition)), grow(chunk.state, floats_of(p, p.state));
  };
  if (spec.update.program) run(spec.update, kClean, 0, static_cast<int>(spec.memory.size()));
  for (size_t i = 0; i < spec.steps.size(); ++i) {
    const ChunkStep& step = spec.steps[i];
    if (step.run) run(step.pass, step.timesteps, first[i], step.guided ? 2 : 1);
    calls.push_back(solve(spec, step, chunk));
  }
  for (const Call& call : calls) ++chunk.counts[std::string(kernel_name(call))];
  chunk.recording = device_->record(calls);
  return chunk;
}

void CudaChunks::run(size_t index, const ChunkInputs& in, float* video, float* action) {
  const Chunk& chunk = chunks_.at(index);
  const auto put = [&](size_t offset, const void* from, size_t bytes) {
    if (bytes) std::memcpy(staged_.data() + offset, from, bytes);
  };
  const auto floats = [&](size_t offset, const float* from, size_t count) {
    if (count && !from) throw InputError("CudaChunks: an input of the chunk is missing");
    put(offset, from, count * sizeof(float));
  };
  std::memset(staged_.data() + at_.step, 0, sizeof(int32_t) + sizeof(uint32_t));
  const kc::CacheSlots slots = cache_slots(*in.stored);
  put(at_.slots, &slots, sizeof(slots));
  const auto tables = [&](size_t offset) { return reinterpret_cast<kc::LiveRows*>(staged_.data() + offset); };
  if (chunk.storing) fill_live_twice(chunk.storing->plan(), in.stored, tables(at_.live_stored));
  if (chunk.reading) fill_live_twice(chunk.reading->plan(), in.read, tables(at_.live_read));
  std::memset(staged_.data() + at_.pull, 0, at_.target - at_.pull);
  if (!in.pull.empty()) {
    put(at_.pull, in.pull.data(), in.pull.size() * sizeof(float));
    floats(at_.target, in.target, action_floats_), floats(at_.weight, in.weight, action_floats_);
  }
  floats(at_.clean, in.clean, chunk.clean), floats(at_.clean_condition, in.clean_condition, chunk.clean_condition);
  floats(at_.condition, in.condition, chunk.condition), floats(at_.state, in.state, chunk.state);
  floats(at_.video, in.video_noise, video_floats_), floats(at_.action, in.action_noise, action_floats_);
  device_->upload(inputs_.as<>(), staged_.data(), at_.bytes);
  device_->replay(*chunk.recording);
  device_->count(chunk.counts);
  device_->download(staged_.data() + at_.video, inputs_.as<>(at_.video), at_.bytes - at_.video);
  std::memcpy(video, staged_.data() + at_.video, video_floats_ * sizeof(float));
  std::memcpy(action, staged_.data() + at_.action, action_floats_ * sizeof(float));
}

}  // namespace wam::cuda
