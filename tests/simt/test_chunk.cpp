// Whole chunks as one recorded list on the simulated device, against the CPU's loop over passes: every solver, static
// masks, guidance, frames that are not imagined, the pull toward a plan.
#include "backend/cuda/backend.h"
#include "device/small_models.h"
#include "session/sampler.h"
#include "sim_device.h"

#include <functional>

using namespace wam;
using namespace sim;
using small_models::config, small_models::distance, small_models::Inputs, small_models::Size, small_models::weight;

namespace {

struct Case {
  const char* name;
  SampleOptions options;
  bool plan = false;  // guided toward one
};

// What one session does: two chunks of one context.
struct Run {
  std::vector<float> video[2], action[2];
  std::vector<int> steps;
  uint64_t forwards = 0;
};

struct Motion {
  explicit Motion(int64_t size) : target(normal(size)), weight(normal(size)) {
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = i % 3 ? std::min(std::abs(weight[i]), 1.0f) : 0.0f;
  }
  std::vector<float> target, weight;
};

Run run(
    std::shared_ptr<Backend> backend, const DitConfig& c, const Inputs& in, const Case& k, const Motion& plan,
    const std::function<void(int)>& look = [](int) {}) {
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(std::move(backend), weight);
  SampleOptions options = k.options;  // unset is not the same on both sides
  options.fuse_observation = options.fuse_observation.value_or(false);
  SampleSchedule schedule(resolve({.steps = 3, .guidance = 1.0}, options), options,
                          static_cast<int>(c.num_frame_per_block));
  Denoiser denoiser(model, schedule.branches());
  Sampler sampler(schedule, denoiser);
  sampler.prepare();
  for (int branch = 0; branch < schedule.branches(); ++branch) {
    std::vector<float> text = in.text;
    for (float& t : text) t *= branch ? -0.5f : 1.0f;
    denoiser.set_text(branch, text.data());
  }
  if (c.has_clip()) denoiser.set_image(in.image.data());
  Run out;
  Tracer trace;
  const PrefixGuidance guidance{plan.target.data(), plan.weight.data(), 5.0};
  for (int i = 0; i < 2; ++i) {
    look(i);
    const int observed = i == 1 ? 2 : 1, start = i == 1 ? 3 : 1;
    sampler.run({.observed = {observed, start - observed, in.frames[i].data(), c.has_clip() ? in.y.data() : nullptr},
                 .start = start,
                 .y = c.has_clip() ? in.y.data() : nullptr,
                 .state = in.state.data(),
                 .video_noise = in.noise.data(),
                 .action_noise = in.action.data(),
                 .guidance = k.plan && i > 0 ? &guidance : nullptr},
                trace);
    out.video[i].assign(sampler.video(), sampler.video() + in.noise.size());
    out.action[i].assign(sampler.action(), sampler.action() + in.action.size());
  }
  look(2);
  out.steps = sampler.steps_run(), out.forwards = denoiser.forwards();
  return out;
}

std::shared_ptr<Backend> on(const std::shared_ptr<SimDevice>& device, bool whole_chunks = true) {
  return std::make_shared<cuda::CudaBackend>(device, make_backend("cpu", 1), whole_chunks);
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"to a plan", {.steps = 2}, true},
      {"guided euler to a plan", {.steps = 2, .guidance = 2.0, .solver = "euler"}, true},
      {"masked, decoupled",
       {.steps = 4, .guidance = 3.0, .step_mask = std::vector<bool>{true, false, true, false}, .decoupled = true}},
      {"one frame, not to the end", {.steps = 2, .imagine = {.frames = 1, .stop_sigma = 0.6}}},
      {"actions only", {.steps = 2, .guidance = 3.0, .actions_only = true, .fuse_observation = true}, true},
      {"one step", {.steps = 1, .guidance = 3.0, .actions_only = true, .fuse_observation = true}},
  };
  return all;
}

// Relative l2 against the CPU in float32, at most twice what was measured on fresh inputs.
constexpr double kTolerance = 3e-2;

}  // namespace

TEST(a_chunk_in_one_recording_equals_the_loop_over_passes) {
  for (size_t i = 0; i < cases().size(); ++i) {
    const Case& k = cases()[i];
    const Size size{i % 2 == 0, 1, i == 0 ? 64 : 24};
    const DitConfig c = config(size);
    const Inputs in(c, size, sim::seed());
    const Motion plan(c.num_action_per_block * c.action_dim);
    auto device = std::make_shared<SimDevice>();
    const Run want = run(make_backend("cpu-ops", 1), c, in, k, plan), got = run(on(device), c, in, k, plan);
    CHECK(got.steps == want.steps && got.forwards == want.forwards);
    double video = 0, action = 0;
    for (int n = 0; n < 2; ++n) {
      video = std::max(video, distance(got.video[n], want.video[n]));
      action = std::max(action, distance(got.action[n], want.action[n]));
    }
    std::printf("  %-26s video %.4f action %.4f\n", k.name, video, action);
    CHECK(video < kTolerance && action < kTolerance);
    CHECK(device->blocks == 0);
  }
}

namespace {

struct Counted {
  cuda::Device::Counts kernels;
  int allocations = 0, uploads = 0, downloads = 0, recordings = 0, replays = 0;
  size_t up = 0, down = 0;
};

// What the second chunk of a session does.
Counted second_chunk(const DitConfig& c, const Inputs& in, double guidance, bool whole) {
  const Case k{"counted", {.steps = 3, .guidance = guidance, .actions_only = true}, true};
  const Motion plan(c.num_action_per_block * c.action_dim);
  auto device = std::make_shared<SimDevice>();
  Counted before, out;
  run(on(device, whole), c, in, k, plan, [&](int chunk) {
    Counted now{device->counts(),   device->allocations, device->uploads,        device->downloads,
                device->recordings, device->replays,     device->uploaded_bytes, device->downloaded_bytes};
    if (chunk == 2) {
      out = now;
      for (auto& [name, times] : out.kernels) times -= before.kernels[name];
      out.allocations -= before.allocations, out.uploads -= before.uploads, out.downloads -= before.downloads;
      out.recordings -= before.recordings, out.replays -= before.replays;
      out.up -= before.up, out.down -= before.down;
    }
    before = now;
  });
  return out;
}

}  // namespace

TEST(launches_and_bytes_of_a_chunk_are_counted) {
  // A chunk is one upload, one recording, one download, however many steps it has, and allocates nothing. It launches
  // what its passes launch on their own, but for time embeddings, which were computed when it was made.
  const Size size{true, 1, 24};
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
  const Counted one = second_chunk(c, in, 1.0, true);
  CHECK(one.allocations == 0 && one.uploads == 1 && one.downloads == 1 && one.recordings == 0 && one.replays == 1);
  const size_t inputs =
      sizeof(float) * (2 * in.noise.size() + 2 * in.y.size() + 3 * in.action.size() + in.state.size());
  const size_t outputs = sizeof(float) * (in.noise.size() + in.action.size());
  CHECK(one.up >= inputs && one.up < inputs + 8192 && one.down >= outputs && one.down < outputs + 512);
  Counted each = second_chunk(c, in, 1.0, false);
  const uint64_t denoise = 3, passes = 1 + denoise;
  CHECK(each.replays == int(passes));
  each.kernels["sinusoid"] -= passes, each.kernels["activation"] -= passes, each.kernels["gemm_plain"] -= 3 * passes;
  each.kernels["sampler_step"] += denoise;
  uint64_t launches = 0;
  for (const auto& [name, times] : each.kernels) {
    const auto it = one.kernels.find(name);
    const uint64_t got = it == one.kernels.end() ? 0 : it->second;
    if (got != times) std::printf("  %s: %d, expected %d\n", name.c_str(), int(got), int(times));
    CHECK(got == times);
    launches += got;
  }
  // With guidance the unconditional branch joins two of the three steps, and the large calls take the rows of both.
  const Counted guided = second_chunk(c, in, 2.0, true);
  uint64_t more = 0;
  for (const auto& [name, times] : guided.kernels) more += times;
  std::printf("  %d launches a chunk, %d with guidance\n", int(launches), int(more));
  CHECK(guided.uploads == 1 && guided.downloads == 1 && guided.replays == 1);
  for (const char* name : {"attention", "sampler_step"}) CHECK(guided.kernels.at(name) == one.kernels.at(name));
  // but for what writes some rows of an array alone, once a step: patches, actions, state
  std::printf("  %d products, %d with guidance\n", int(one.kernels.at("gemm")), int(guided.kernels.at("gemm")));
  CHECK(guided.kernels.at("gemm") == one.kernels.at("gemm") + 2 * 3);
  CHECK(more < launches + launches / 3);
}

CHECK_MAIN()
