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
  bool plan = false;   // guided toward one
  int clean_rows = 0;  // of it, for a checkpoint that was trained with such prefixes
};

// What one session does: two chunks of one context.
struct Run {
  std::vector<float> video[2], action[2];
  std::vector<int> steps;
  uint64_t forwards = 0;
  bool whole_chunks = false;
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
  const PrefixGuidance guidance{plan.target.data(), plan.weight.data(), 5.0, k.clean_rows};
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
  out.steps = sampler.steps_run(), out.forwards = denoiser.forwards(), out.whole_chunks = sampler.whole_chunks();
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

namespace {

// How far two chunks of a run on the simulated device are from the CPU's.
struct Off {
  double video = 0, action = 0;
};
Off off(const char* name, const Run& got, const Run& want) {
  Off out;
  for (int n = 0; n < 2; ++n) {
    out.video = std::max(out.video, distance(got.video[n], want.video[n]));
    out.action = std::max(out.action, distance(got.action[n], want.action[n]));
  }
  std::printf("  %-26s video %.4f action %.4f\n", name, out.video, out.action);
  return out;
}

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
    CHECK(got.steps == want.steps && got.forwards == want.forwards && got.whole_chunks);
    const Off far = off(k.name, got, want);
    CHECK(far.video < kTolerance && far.action < kTolerance);
    CHECK(device->blocks == 0);
  }
}

TEST(steps_that_are_skipped_by_similarity_equal_the_cpus) {
  // Between the passes the host compares velocities. With so large a shift all but the last noise level are nearly one,
  // and so are the velocities: where the two sides round differently no comparison can turn out otherwise.
  for (const bool actions_only : {false, true}) {
    const Case k{actions_only ? "dynamic, actions only" : "dynamic, fused",
                 {.steps = 8,
                  .guidance = actions_only ? 2.0 : 1.0,
                  .shift = 1000.0,
                  .dynamic_skip = true,
                  .actions_only = actions_only,
                  .fuse_observation = !actions_only},
                 true};
    const Size size{!actions_only, 1, 24};
    const DitConfig c = config(size);
    const Inputs in(c, size, sim::seed());
    const Motion plan(c.num_action_per_block * c.action_dim);
    auto device = std::make_shared<SimDevice>();
    int before = 0;  // recordings that were repeated for prompt and image
    const Run want = run(make_backend("cpu-ops", 1), c, in, k, plan),
              got = run(on(device), c, in, k, plan, [&](int chunk) { before = chunk ? before : device->replays; });
    CHECK((got.steps == std::vector<int>{0, 1, 6, 7} || got.steps == std::vector<int>{0, 1, 6}));
    CHECK(got.steps == want.steps && got.forwards == want.forwards && !got.whole_chunks);
    CHECK(uint64_t(device->replays - before) == got.forwards);  // a recording a pass
    const Off far = off(k.name, got, want);
    CHECK(far.video < kTolerance && far.action < kTolerance);
    CHECK(device->blocks == 0);
  }
}

TEST(actions_that_are_given_clean_equal_the_cpus) {
  // Clean rows have timestep 0 in the same pass as noisy ones, and which they are is not known beforehand.
  int clean = 0;
  for (const char* solver : {"unipc", "euler"}) {
    const Case k{solver,
                 {.steps = 2, .guidance = clean ? 1.0 : 2.0, .solver = solver, .fuse_observation = clean > 0},
                 true,
                 ++clean};
    const Size size{clean == 1, 1, 24};
    DitConfig c = config(size);
    c.trained_prefix = 3;
    const Inputs in(c, size, sim::seed());
    const Motion plan(c.num_action_per_block * c.action_dim);
    auto device = std::make_shared<SimDevice>();
    int before = 0;  // recordings that were repeated for prompt and image
    const Run want = run(make_backend("cpu-ops", 1), c, in, k, plan),
              got = run(on(device), c, in, k, plan, [&](int chunk) { before = chunk ? before : device->replays; });
    CHECK(got.steps == want.steps && got.forwards == want.forwards && !got.whole_chunks);
    CHECK(uint64_t(device->replays - before) == got.forwards);
    const Off far = off(k.name, got, want);
    CHECK(far.video < kTolerance && far.action < kTolerance);
    CHECK(std::equal(plan.target.begin(), plan.target.begin() + clean * c.action_dim, got.action[1].begin()));
    CHECK(!std::equal(plan.target.begin(), plan.target.begin() + clean * c.action_dim, got.action[0].begin()));
    Case free = k;  // and the rows that follow do see them
    free.clean_rows = 0, free.plan = false;
    const Run without = run(on(std::make_shared<SimDevice>()), c, in, free, plan);
    const auto rest = [&](const Run& r) {
      return std::vector<float>(r.action[1].begin() + clean * c.action_dim, r.action[1].end());
    };
    CHECK(without.action[0] == got.action[0] && rest(without) != rest(got));
  }
}

namespace {

struct Counted {
  cuda::Device::Counts kernels;
  int allocations = 0, uploads = 0, downloads = 0, recordings = 0, replays = 0;
  size_t up = 0, down = 0;
  Work work;

  uint64_t launches() const {
    uint64_t all = 0;
    for (const auto& [name, times] : kernels) all += times;
    return all;
  }
};

// What the second chunk of a session does.
Counted second_chunk(const DitConfig& c, const Inputs& in, const SampleOptions& options, bool whole = true) {
  const Case k{"counted", options, true};
  const Motion plan(c.num_action_per_block * c.action_dim);
  auto device = std::make_shared<SimDevice>();
  Counted before, out;
  run(on(device, whole), c, in, k, plan, [&](int chunk) {
    Counted now{device->counts(),       device->allocations,      device->uploads,
                device->downloads,      device->recordings,       device->replays,
                device->uploaded_bytes, device->downloaded_bytes, device->work};
    if (chunk == 2) {
      out = now;
      for (auto& [name, times] : out.kernels) times -= before.kernels[name];
      out.allocations -= before.allocations, out.uploads -= before.uploads, out.downloads -= before.downloads;
      out.recordings -= before.recordings, out.replays -= before.replays;
      out.up -= before.up, out.down -= before.down;
      out.work = out.work - before.work;
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
  const auto options = [](double guidance) {
    return SampleOptions{.steps = 3, .guidance = guidance, .actions_only = true};
  };
  const Counted one = second_chunk(c, in, options(1.0));
  CHECK(one.allocations == 0 && one.uploads == 1 && one.downloads == 1 && one.recordings == 0 && one.replays == 1);
  const size_t inputs =
      sizeof(float) * (2 * in.noise.size() + 2 * in.y.size() + 3 * in.action.size() + in.state.size());
  const size_t outputs = sizeof(float) * (in.noise.size() + in.action.size());
  CHECK(one.up >= inputs && one.up < inputs + 8192 && one.down >= outputs && one.down < outputs + 512);
  Counted each = second_chunk(c, in, options(1.0), false);
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
  const Counted guided = second_chunk(c, in, options(2.0));
  const uint64_t more = guided.launches();
  std::printf("  %d launches a chunk, %d with guidance\n", int(launches), int(more));
  CHECK(guided.uploads == 1 && guided.downloads == 1 && guided.replays == 1);
  for (const char* name : {"attention", "sampler_step"}) CHECK(guided.kernels.at(name) == one.kernels.at(name));
  // but for what writes some rows of an array alone, once a step: patches, actions, state
  std::printf("  %d products, %d with guidance\n", int(one.kernels.at("gemm")), int(guided.kernels.at("gemm")));
  CHECK(guided.kernels.at("gemm") == one.kernels.at("gemm") + 2 * 3);
  CHECK(more < launches + launches / 3);
}

TEST(observing_in_the_first_steps_pass_reads_the_weights_once_less) {
  // What fusing is for: an update reads all that a pass reads, but for the last layer's attention and what follows it.
  const Size size{false, 2, 64, 2};
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
  const double d = double(c.dim), layer = 2 * (6 * d * d + 2 * d * double(c.ffn_dim));  // bytes of matrices
  uint64_t saved = 0;
  for (const int steps : {1, 2}) {
    const auto options = [&](bool fuse) {
      return SampleOptions{.steps = steps, .guidance = 1.0, .fuse_observation = fuse};
    };
    const Counted apart = second_chunk(c, in, options(false)), fused = second_chunk(c, in, options(true));
    const Work less = apart.work - fused.work;
    std::printf(
        "  %d steps: %d launches instead of %d, %.0f KB of weights instead of %.0f, %.0f KB of keys instead of "
        "%.0f, %.2f MFLOP instead of %.2f\n",
        steps, int(fused.launches()), int(apart.launches()), fused.work.weights / 1e3, apart.work.weights / 1e3,
        fused.work.keys / 1e3, apart.work.keys / 1e3, fused.work.flop / 1e6, apart.work.flop / 1e6);
    CHECK(fused.uploads == 1 && fused.downloads == 1 && fused.replays == 1 && fused.recordings == 0);
    // The update's part of the weights: whole layers but the last, of which it makes keys and values alone.
    CHECK(less.weights == layer * double(c.num_layers - 1) + 2 * 2 * d * d && less.keys > 0);
    // In one pass the observed rows go through the last layer too; they see one frame before them, themselves, the
    // text.
    const double rows = double(2 * c.frame_seqlen), seen = double(3 * c.frame_seqlen + c.text_len);
    CHECK(-less.flop == 2 * rows * (layer / 2 - 2 * d * d) + 4 * rows * seen * d);
    CHECK(apart.launches() > fused.launches());
    if (steps == 1) saved = apart.launches() - fused.launches();
    CHECK(apart.launches() - fused.launches() == saved);
  }
}

CHECK_MAIN()
