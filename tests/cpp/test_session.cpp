// The session on the bundled checkpoint: no allocation once warm, failures that change nothing, the imagination knob.
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <thread>

#include "check.h"
#include "fresh.h"
#include "session/synthetic_weights.h"
#include "wamcore/error.h"
#include "wamcore/session.h"

// GCC takes these replacements for a mismatch of malloc and delete.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
static std::atomic<int64_t> allocations{0};
void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
void* operator new(size_t n, std::align_val_t a) {
  ++allocations;
  const size_t align = static_cast<size_t>(a);
  if (void* p = std::aligned_alloc(align, (n + align - 1) / align * align)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

using namespace wam;

namespace {

std::shared_ptr<const Model> model(const std::string& device = "cpu") {
  return Model::load(WAMCORE_SOURCE_DIR "/python/wamcore/models/tabletop", {.device = device, .threads = 2});
}

Observation observation(const Model& m, int frames, int64_t tick) {
  static const uint64_t run = check::fresh()();
  std::mt19937_64 rng(run + static_cast<uint64_t>(tick));  // a tick's pictures are the same whenever they are asked for
  Observation obs{.tick = tick, .t_ns = static_cast<uint64_t>(tick) * 50'000'000};
  for (const CameraSpec& c : m.embodiment().cameras) {
    CameraFrames f{.name = c.name, .frames = frames, .height = c.height, .width = c.width};
    f.rgb.resize(static_cast<size_t>(frames * c.height * c.width * 3));
    for (uint8_t& byte : f.rgb) byte = static_cast<uint8_t>(rng());
    obs.cameras.push_back(std::move(f));
  }
  for (int i = 0; i < m.embodiment().state_dim(); ++i) obs.state.push_back(0.1 * i);
  return obs;
}

}  // namespace

TEST(a_warm_session_allocates_nothing) {
  const auto m = model();
  Session session(m, {.steps = 2});
  session.set_prompt("touch the red block");
  ActionChunk chunk;
  std::vector<Observation> stream;
  for (int i = 0; i < 9; ++i) stream.push_back(observation(*m, i == 0 ? 1 : 2, 16 * i));
  for (const Observation& obs : stream) session.infer(obs, chunk);  // a whole context and the start of the next
  const int64_t before = allocations;
  for (const Observation& obs : stream) session.infer(obs, chunk);
  CHECK(allocations - before == 0);
  // The mode that a robot runs in by default continues the plan in motion, of which more or less is left and frozen.
  std::vector<Continuation> plans;
  for (int i = 0; i < 9; ++i) {
    const int rows = 1 + (3 * i) % (m->horizon() + 2), values = rows * m->embodiment().action_dim();
    plans.push_back({.rows = rows, .frozen = rows / 2, .q = std::vector<double>(static_cast<size_t>(values), 0.1)});
  }
  const int64_t first_plan = allocations;
  for (size_t i = 0; i < stream.size(); ++i) session.extend(stream[i], plans[i], chunk);
  CHECK(allocations - first_plan == 0);
  CHECK(session.trace().count(Counter::images_decoded) == 0);
}

TEST(a_prompt_is_encoded_once) {
  const auto m = model();
  for (const double guidance : {1.0, 3.0}) {
    const uint64_t each = guidance == 1.0 ? 1 : 2;  // the negative prompt is a text as well
    Session session(m, {.steps = 1, .guidance = guidance});
    CHECK(session.trace().count(Counter::text_encodes) == 0);
    session.set_prompt_tokens({3, 4}, {5});
    uint64_t first_ns = 0, preprocess = 0;
    for (int i = 0; i < 5; ++i) {
      session.infer(observation(*m, i == 0 ? 1 : 2, 16 * i));
      const Trace& trace = session.trace();
      CHECK(trace.count(Counter::text_encodes) == each && trace.entries[size_t(Stage::text)] == 1);
      CHECK(trace.time_ns(Stage::text) > 0 && (i == 0 || trace.time_ns(Stage::text) == first_ns));
      first_ns = trace.time_ns(Stage::text);
      preprocess += trace.entries[size_t(Stage::preprocess)];
    }
    CHECK(preprocess == 5);  // everything else begins anew with every chunk
    session.set_prompt_tokens({3, 6}, {5});
    session.infer(observation(*m, 2, 80));
    CHECK(session.trace().count(Counter::text_encodes) == 2 * each);
    CHECK(session.trace().entries[size_t(Stage::text)] == 2 && session.trace().time_ns(Stage::text) > first_ns);
  }
}

// Two frames are stretched to three, of which the context keeps two; the bundled codec takes frames one by one.
TEST(frames_that_the_context_drops_are_not_encoded) {
  const std::string dir = WAMCORE_SOURCE_DIR "/python/wamcore/models/tabletop";
  const auto bundled = model(), tied = synthetic_model(dir, {.device = "cpu", .threads = 2}, 1);
  for (const auto& m : {bundled, tied}) {
    Session session(m, {.steps = 1});
    session.set_prompt_tokens({3, 4}, {5});
    session.infer(observation(*m, 1, 0));
    CHECK(session.trace().count(Counter::vae_frames_encoded) == 1);
    session.infer(observation(*m, 2, 16));
    CHECK(session.trace().count(Counter::vae_frames_encoded) == (m == bundled ? 2u : 3u));
  }
}

TEST(a_chunk_carries_its_observation) {
  const auto m = model();
  Session session(m, {.steps = 1});
  session.set_prompt("touch the red block");
  const Observation obs = observation(*m, 1, 7);
  const ActionChunk a = session.infer(obs), b = session.infer(observation(*m, 2, 23));
  CHECK(a.obs_tick == 7 && a.obs_ns == obs.t_ns && a.sequence + 1 == b.sequence && a.epoch == b.epoch);
  CHECK(a.horizon == m->horizon() && a.dof == m->embodiment().action_dim());
  CHECK_NEAR(a.dt * m->embodiment().control_hz, 1.0, 1e-12);
  CHECK(session.context_start() == 5);
  session.reset();
  const ActionChunk c = session.infer(obs);
  CHECK(c.epoch == a.epoch + 1 && c.q == a.q);
}

TEST(a_failed_inference_leaves_the_session_as_it_was) {
  const auto m = model();
  Session session(m, {.steps = 1}), twin(m, {.steps = 1});
  CHECK_THROWS(session.infer(observation(*m, 1, 0)), InputError, "set_prompt");
  for (Session* s : {&session, &twin}) {
    s->set_prompt("push the blue block left");
    s->infer(observation(*m, 1, 0));
  }
  Observation bad = observation(*m, 2, 16);
  bad.state[0] = NAN;
  CHECK_THROWS(session.infer(bad), InputError, "not finite");
  bad = observation(*m, 2, 16);
  bad.state.pop_back();
  CHECK_THROWS(session.infer(bad), ShapeError, "state");
  bad = observation(*m, 2, 16);
  bad.cameras[0].name = "scent";
  CHECK_THROWS(session.infer(bad), InputError, "scene");
  bad = observation(*m, 2, 16);
  bad.cameras[0].height = 63;
  CHECK_THROWS(session.infer(bad), ShapeError, "63");
  bad = observation(*m, 2, 16);
  bad.cameras[0].rgb.pop_back();
  CHECK_THROWS(session.infer(bad), ShapeError, "bytes");
  CHECK_THROWS(session.infer(observation(*m, 7, 16)), InputError, "frames");
  CHECK_THROWS(session.set_prompt("  "), InputError, "empty");
  CHECK_THROWS(session.set_prompt_tokens(std::vector<int64_t>(99, 3)), InputError, "at most");
  CHECK_THROWS(session.set_prompt_tokens({-1}), InputError, "vocabulary");
  CHECK(session.infer(observation(*m, 2, 16)).q == twin.infer(observation(*m, 2, 16)).q);
}

TEST(both_programs_give_the_same_chunk) {
  const auto a = model("cpu"), b = model("cpu-ops");
  Session fused(a), plain(b);
  for (Session* s : {&fused, &plain}) s->set_prompt("touch the green block");
  for (int i = 0; i < 3; ++i) {
    const ActionChunk x = fused.infer(observation(*a, i ? 2 : 1, 16 * i)),
                      y = plain.infer(observation(*b, i ? 2 : 1, 16 * i));
    CHECK(check::relative_error(x.q, y.q, x.q.size()) < 1e-4);
  }
}

// Sessions of one model share its pool and programs, and nothing that either writes.
TEST(sessions_side_by_side_give_what_they_give_alone) {
  const auto m = model();
  constexpr int kChunks = 6;
  std::vector<std::vector<double>> alone[2], together[2];
  const auto play = [&](int which, std::vector<std::vector<double>>& out) {
    Session session(m, {.steps = 2, .seed = uint64_t(7 + which)});
    session.set_prompt(which ? "touch the red block" : "push the blue block left");
    for (int i = 0; i < kChunks; ++i) out.push_back(session.infer(observation(*m, i ? 2 : 1, 16 * i + 100 * which)).q);
  };
  for (int which : {0, 1}) play(which, alone[which]);
  CHECK(alone[0] != alone[1]);
  for (int round = 0; round < 3; ++round) {
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int which : {0, 1}) {
      together[which].clear();
      threads.emplace_back([&, which] {
        for (++ready; ready < 2;) std::this_thread::yield();
        play(which, together[which]);
      });
    }
    for (std::thread& t : threads) t.join();
    for (int which : {0, 1}) CHECK(together[which] == alone[which]);
  }
}

TEST(imagination_can_be_turned_down) {
  const auto m = model();
  const Observation obs = observation(*m, 1, 0);
  const Shape shape = m->latent_shape();
  const int64_t frame = shape[2] * shape[3];
  Noise noise{std::vector<float>(static_cast<size_t>(numel(shape))),
              std::vector<float>(static_cast<size_t>(m->horizon() * 4))};
  std::normal_distribution<float> normal;
  for (float& x : noise.video) x = normal(check::fresh());
  for (float& x : noise.action) x = normal(check::fresh());
  // Does latent frame f (0 is the observed one) still hold its noise?
  const auto untouched = [&](const Tensor& latents, int64_t f) {
    for (int64_t c = 0; c < shape[0]; ++c)
      for (int64_t i = 0; i < frame; ++i)
        if (latents.data<float>()[(c * (shape[1] + 1) + f) * frame + i] !=
            noise.video[static_cast<size_t>((c * shape[1] + f - 1) * frame + i)])
          return false;
    return true;
  };
  for (const int frames : {0, 1, -1}) {
    Session session(m, {.steps = 4, .imagine = {.frames = frames}});
    session.set_prompt("touch the red block");
    session.infer(obs, &noise);
    const Tensor& latents = session.predicted_latents();
    CHECK(untouched(latents, 1) == (frames == 0));
    CHECK(untouched(latents, 2) == (frames != -1));
  }
  Session early(m, {.steps = 4, .imagine = {.frames = -1, .stop_sigma = 0.5}});
  early.set_prompt("touch the red block");
  for (const double q : early.infer(obs, &noise).q) CHECK(std::isfinite(q));
  CHECK(!untouched(early.predicted_latents(), 1));
  CHECK_THROWS(Session(m, {.imagine = {.frames = -2}}), ConfigError, "imagine");
  CHECK_THROWS(Session(m, {.steps = 0}), ConfigError, "steps");
  CHECK_THROWS(Session(m, {.steps = 1000000}), ConfigError, "1000000");
  CHECK_THROWS(Session(m, {.solver = "heun"}), ConfigError, "heun");
  CHECK((Session(m, {.frame_offsets = std::vector<int>{-4, 0}}).frame_offsets() == std::vector<int>{-4, 0}));
  CHECK((Session(m).frame_offsets() == m->embodiment().frame_offsets));
  CHECK_THROWS(Session(m, {.frame_offsets = std::vector<int>{0}}), ConfigError, "frame_offsets");
  CHECK_THROWS(Session(m, {.frame_offsets = std::vector<int>{0, 0}}), ConfigError, "rise");
}

TEST(guidance_runs_two_branches_and_one_is_plain) {
  const auto m = model();
  Session guided(m, {.steps = 2, .guidance = 3.0}), plain(m, {.steps = 2, .guidance = 1.0});
  CHECK_THROWS(guided.set_prompt_tokens({3, 4}), InputError, "negative");
  for (Session* s : {&guided, &plain}) {
    s->set_prompt_tokens({3, 4}, {5});
    s->infer(observation(*m, 1, 0));
  }
  CHECK(guided.trace().count(Counter::dit_forwards) == 6);  // (1 prefill + 2 steps) x 2
  CHECK(plain.trace().count(Counter::dit_forwards) == 3);
  // A guidance of one on two branches is no guidance: same negative as positive prompt gives the plain result.
  Session same(m, {.steps = 2, .guidance = 3.0});
  same.set_prompt_tokens({3, 4}, {3, 4});
  const ActionChunk a = same.infer(observation(*m, 1, 0));
  plain.reset();
  CHECK(check::relative_error(a.q, plain.infer(observation(*m, 1, 0)).q, a.q.size()) < 1e-4);
}

TEST(actions_alone_are_the_same_actions_for_fewer_passes) {
  const auto m = model();
  struct Case {
    SampleOptions options;
    uint64_t all, needed;  // passes of the first chunk
  };
  const std::vector<bool> mask = {true, true, false, false};
  // the unconditional branch is left out of the last step that runs; where that is the only one, it is not there at all
  const Case cases[] = {
      {{.steps = 3, .guidance = 3.0}, 8, 7},
      {{.steps = 4, .guidance = 3.0, .step_mask = mask}, 6, 5},
      {{.steps = 1, .guidance = 3.0}, 4, 2},
      {{.steps = 2, .guidance = 3.0, .imagine = {.frames = 0}}, 3, 3},
      {{.steps = 3, .guidance = 3.0, .shift = 5.0, .imagine = {.stop_sigma = 0.9}}, 7, 7},
      {{.steps = 1, .guidance = 3.0, .dynamic_skip = true}, 4, 2},
      {{.steps = 2, .guidance = 3.0, .dynamic_skip = true}, 6, 5},   // no step is skipped before the third
      {{.steps = 6, .guidance = 3.0, .dynamic_skip = true}, 0, 0}};  // how many run is not known
  for (const Case& k : cases) {
    SampleOptions alone = k.options;
    alone.actions_only = true;
    Session both(m, k.options), actions(m, alone);
    for (Session* s : {&both, &actions}) s->set_prompt_tokens({3, 4}, {5});
    for (int i = 0; i < 2; ++i) {
      const Observation obs = observation(*m, i ? 2 : 1, 16 * i);
      CHECK(both.infer(obs).q == actions.infer(obs).q);
      if (i == 0 && k.all) {
        CHECK(both.trace().count(Counter::dit_forwards) == k.all);
        CHECK(actions.trace().count(Counter::dit_forwards) == k.needed);
      }
    }
    CHECK_THROWS(actions.decode(), InputError, "actions only");
    CHECK_THROWS(actions.predicted_latents(), InputError, "actions only");
  }
  // Frames that nobody imagines need no guidance either.
  Session blind(m, {.steps = 2, .guidance = 3.0, .imagine = {.frames = 0}}),
      plain(m, {.steps = 2, .guidance = 1.0, .imagine = {.frames = 0}});
  for (Session* s : {&blind, &plain}) s->set_prompt_tokens({3, 4});
  CHECK(blind.infer(observation(*m, 1, 0)).q == plain.infer(observation(*m, 1, 0)).q);
}

TEST(observing_and_denoising_can_be_one_pass) {
  for (const char* device : {"cpu-ops", "cpu"}) {
    const auto m = model(device);
    SampleOptions one{.steps = 2, .guidance = 3.0, .fuse_observation = true}, two = one;
    two.fuse_observation = false;
    Session fused(m, one), apart(m, two);
    for (Session* s : {&fused, &apart}) s->set_prompt_tokens({3, 4}, {5});
    for (int i = 0; i < 6; ++i) {  // a whole context and the start of the next
      const Observation obs = observation(*m, i ? 2 : 1, 16 * i);
      const ActionChunk a = fused.infer(obs), b = apart.infer(obs);
      // rows are computed in other groups, so sums may be rounded otherwise
      CHECK(check::relative_error(a.q, b.q, a.q.size()) < 2e-5);
      const Tensor keys = fused.memory(1), want = apart.memory(1);
      CHECK(keys.shape() == want.shape());
      CHECK(check::relative_error(std::vector<float>(keys.data<float>(), keys.data<float>() + keys.numel()),
                                  std::vector<float>(want.data<float>(), want.data<float>() + want.numel()),
                                  static_cast<size_t>(keys.numel())) < 2e-5);
      CHECK(fused.trace().count(Counter::dit_forwards) == 4 && apart.trace().count(Counter::dit_forwards) == 6);
    }
  }
  // left to itself a CPU does not: its passes are bound by multiplying
  Session plain(model(), {.steps = 2, .guidance = 1.0});
  plain.set_prompt("touch the red block");
  plain.infer(observation(plain.model(), 1, 0));
  CHECK(plain.trace().count(Counter::dit_forwards) == 3);
}

TEST(pictures_are_made_on_demand_only) {
  const auto m = model();
  Session session(m, {.steps = 1});
  session.set_prompt("touch the red block");
  CHECK_THROWS(session.decode(), InputError, "nothing predicted");
  CHECK_THROWS(session.predicted_latents(), InputError, "nothing predicted");
  session.infer(observation(*m, 1, 0));
  CHECK(session.observed_frames() == 1 && session.predicted_latents().dim(1) == m->latent_shape()[1] + 1);
  const Tensor pictures = session.decode();
  CHECK((pictures.shape() == Shape{2, 64, 96, 3}) && pictures.dtype() == DType::u8);
  CHECK(session.trace().count(Counter::images_decoded) > 0);
}

CHECK_MAIN()
