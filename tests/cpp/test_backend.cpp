// The seam between model and backends: the same plans on the plain loop over operations and on the fused program, with
// any number of threads, on random small models.
#include <random>

#include "core/thread_pool.h"
#include "flow/denoiser.h"
#include "fresh.h"
#include "isa_main.h"
#include "wamcore/error.h"

using namespace wam;

namespace {

std::mt19937 rng(uint32_t(check::fresh()()));
int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }
std::vector<float> randn(int64_t n) {
  std::normal_distribution<float> d;
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = d(rng);
  return v;
}

DitConfig random_config(bool i2v, bool clip) {
  DitConfig c;
  c.model_type = i2v ? "i2v" : "ti2v";
  c.num_heads = pick(1, 3);
  c.dim = c.num_heads * 2 * pick(3, 12);
  c.ffn_dim = pick(5, 60), c.freq_dim = 2 * pick(2, 20), c.num_layers = pick(1, 3);
  c.frame_seqlen = 6, c.text_len = pick(1, 9), c.text_dim = pick(1, 20);
  c.out_dim = pick(1, 5), c.in_dim = i2v ? 2 * c.out_dim + 4 : c.out_dim, c.concat_first_frame_latent = i2v;
  c.max_chunk_size = 2, c.num_frame_per_block = 2, c.num_action_per_block = pick(1, 9), c.num_state_per_block = 1;
  c.action_dim = pick(1, 7), c.max_state_dim = pick(1, 9), c.hidden_size = pick(3, 30);
  c.local_attn_size = 5;
  if (clip) c.clip_dim = pick(2, 20), c.clip_tokens = pick(1, 9);
  return c;
}

// Weights that depend on the name alone, so that two models made apart are the same.
Tensor weight(const std::string& name, const Shape& shape) {
  std::mt19937 mine(static_cast<uint32_t>(std::hash<std::string>{}(name)));
  std::normal_distribution<float> d(0.0f, 0.3f);
  Tensor t(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = d(mine);
  return t;
}

struct Chunk {
  std::vector<float> prefill, video, action;
};

struct Inputs {
  std::vector<float> text, image, first, x, y, action, state, t = {400, 300, 900};
};

Chunk run(const DitConfig& c, const std::string& device, int threads, const Inputs& in,
          Precision precision = Precision::automatic) {
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(make_backend(device, threads), weight, precision);
  Denoiser d(model, 1);
  d.set_text(0, in.text.data());
  if (c.has_clip()) d.set_image(in.image.data());
  const int64_t area = 24;
  Chunk out{std::vector<float>(size_t(c.out_dim * area)), std::vector<float>(size_t(2 * c.out_dim * area)),
            std::vector<float>(size_t(c.num_action_per_block * c.action_dim))};
  d.prefill(0, 1, 0, in.first.data(), in.y.data(), out.prefill.data());
  d.denoise(0, 2, 1,
            {.x = in.x.data(),
             .y = in.y.data(),
             .timesteps = in.t.data(),
             .action = in.action.data(),
             .state = in.state.data(),
             .velocity = out.video.data(),
             .action_velocity = out.action.data()});
  return out;
}

Inputs inputs(const DitConfig& c) {
  return {
      randn(c.text_len * c.text_dim), randn(c.clip_tokens * c.clip_dim), randn(c.out_dim * 24),
      randn(c.out_dim * 48),          randn(c.cond_channels() * 48 + 1), randn(c.num_action_per_block * c.action_dim),
      randn(c.max_state_dim)};
}

}  // namespace

TEST(fused_and_plain_programs_agree) {
  for (int round = 0; round < 12; ++round) {
    const DitConfig c = random_config(round & 1, round & 2);
    const Inputs in = inputs(c);
    const Chunk a = run(c, "cpu-ops", 1, in), b = run(c, "cpu", int(pick(1, 3)), in);
    CHECK(check::relative_error(b.prefill, a.prefill, a.prefill.size()) < 2e-5);
    CHECK(check::relative_error(b.video, a.video, a.video.size()) < 2e-5);
    CHECK(check::relative_error(b.action, a.action, a.action.size()) < 2e-5);
  }
}

// Rounding is the same in both programs, but a value between two steps may fall to either side of them. Errors are
// pooled over the rounds: a single action may be near zero by chance. They are relative L2 errors.
struct Pooled {
  double apart, wrong;  // the programs of each other, and of float32
};
Pooled errors_of(Precision precision) {
  double apart = 0, wrong = 0, size = 0;
  const auto add = [](double& sum, const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double(a[i]) - double(b[i]), 2);
  };
  for (int round = 0; round < 16; ++round) {
    const DitConfig c = random_config(round & 1, round & 2);
    const Inputs in = inputs(c);
    const Chunk exact = run(c, "cpu-ops", 1, in), a = run(c, "cpu-ops", 1, in, precision),
                b = run(c, "cpu", int(pick(1, 3)), in, precision);
    for (const auto field : {&Chunk::video, &Chunk::action}) {
      add(apart, b.*field, a.*field), add(wrong, a.*field, exact.*field);
      add(size, exact.*field, std::vector<float>((exact.*field).size()));
    }
  }
  return {std::sqrt(apart / size), std::sqrt(wrong / size)};
}

TEST(int8_programs_agree_and_are_near_float32) {
  const Pooled e = errors_of(Precision::int8);
  CHECK(e.apart < 5e-3);
  CHECK(e.wrong < 8e-2);  // of models of a few channels; test_int8.py has the gate
  CHECK(e.wrong > 1e-5);  // something was rounded
}

TEST(bf16_programs_agree_and_are_near_float32) {
  const Pooled e = errors_of(Precision::bfloat16);
  CHECK(e.apart < 1e-3);
  CHECK(e.wrong < 1.5e-2);  // of models of a few channels, where errors average out less; the gate is in test_bf16.py
  CHECK(e.wrong > 1e-5);
}

TEST(prefill_for_memory_only_leaves_the_same_memory) {
  const DitConfig c = random_config(false, false);
  const Inputs in = inputs(c);
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(make_backend("cpu", 1), weight);
  Denoiser a(model, 1), b(model, 1);
  std::vector<float> velocity(size_t(c.out_dim * 24)), ka, va, kb, vb;
  for (Denoiser* d : {&a, &b}) d->set_text(0, in.text.data());
  a.prefill(0, 1, 0, in.first.data(), nullptr);
  b.prefill(0, 1, 0, in.first.data(), nullptr, velocity.data());
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    a.memory(0).copy(layer, ka, va);
    b.memory(0).copy(layer, kb, vb);
    CHECK(ka == kb && va == vb);
  }
}

// The loop of a family that remembers what it imagined: the block goes into memory as predicted, and once it has been
// seen the pass runs again over the same slots. Nothing of the prediction may stay behind.
TEST(an_observation_over_a_prediction_is_a_fresh_prefill) {
  for (int round = 0; round < 8; ++round) {
    const DitConfig c = random_config(round & 1, round & 2);
    const Inputs in = inputs(c);
    const std::vector<float> imagined = randn(c.out_dim * 48);
    auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
    model->load(make_backend(round & 4 ? "cpu" : "cpu-ops", 1), weight);
    Denoiser replaced(model, 1), fresh(model, 1);
    for (Denoiser* d : {&replaced, &fresh}) {
      d->set_text(0, in.text.data());
      if (c.has_clip()) d->set_image(in.image.data());
      d->prefill(0, 1, 0, in.first.data(), in.y.data());
    }
    // Frames 1 and 2 of `d`, the pass of Denoiser::prefill with a view of our own.
    const auto remember = [&](Denoiser& d, const MemoryView& view, const std::vector<float>& latents) {
      const DitProgram& p = model->program(DreamZero::Pass::prefill, 2, 1);
      std::vector<float*> external(p.buffers, nullptr);
      float clean = 0.0f;
      external[size_t(p.x)] = const_cast<float*>(latents.data());
      if (p.y != kNone) external[size_t(p.y)] = const_cast<float*>(in.y.data());
      external[size_t(p.timesteps)] = &clean;
      const ContextView context = d.context(0);
      const std::shared_ptr<float> workspace = model->backend().allocate_workspace(p.program->workspace_floats());
      p.program->run({.external = external, .memory = &view, .context = &context, .workspace = workspace.get()});
    };
    const auto kept = [&](Denoiser& d, int64_t layer) {
      std::vector<float> k, v;
      d.memory(0).copy(layer, k, v);
      k.insert(k.end(), v.begin(), v.end());
      return k;
    };
    remember(replaced, replaced.memory(0).store(1, 2, Origin::predicted), imagined);
    fresh.prefill(0, 2, 1, in.x.data(), in.y.data());
    CHECK(kept(replaced, 0) != kept(fresh, 0));
    remember(replaced, replaced.memory(0).replace(1, 2, Origin::observed), in.x);
    CHECK(replaced.memory(0).frames().size() == 3);
    for (const Memory::Frame& f : replaced.memory(0).frames()) CHECK(f.origin == Origin::observed);
    for (int64_t layer = 0; layer < c.num_layers; ++layer) CHECK(kept(replaced, layer) == kept(fresh, layer));
    // ... and what is denoised behind it is the same.
    std::vector<float> video[2], action[2];
    for (int i : {0, 1}) {
      video[i].resize(size_t(c.out_dim * 48)), action[i].resize(size_t(c.num_action_per_block * c.action_dim));
      (i ? fresh : replaced)
          .denoise(0, 2, 3,
                   {.x = imagined.data(),
                    .y = in.y.data(),
                    .timesteps = in.t.data(),
                    .action = in.action.data(),
                    .state = in.state.data(),
                    .velocity = video[i].data(),
                    .action_velocity = action[i].data()});
    }
    CHECK(video[0] == video[1] && action[0] == action[1]);
  }
}

TEST(taps_show_intermediate_values) {
  const DitConfig c = random_config(true, true);
  const Inputs in = inputs(c);
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(make_backend("cpu-ops", 1), weight);
  Denoiser d(model, 1);
  std::vector<std::string> seen;
  const Tap tap = [&](const std::string& label, const float*, int64_t, int64_t, int64_t) { seen.push_back(label); };
  d.set_text(0, in.text.data());
  d.set_image(in.image.data());
  d.set_tap(&tap);
  d.prefill(0, 1, 0, in.first.data(), in.y.data());
  for (const char* label : {"patch_embedding", "blocks.0.self.norm1", "time_projection.1"})
    CHECK(std::find(seen.begin(), seen.end(), label) != seen.end());
}

TEST(every_weight_is_named_before_loading) {
  const DitConfig c = random_config(true, true);
  DreamZero model(c, {4, 6}, "action_head.model.");
  size_t seen = 0;
  model.load(make_backend("cpu", 1), [&](const std::string& name, const Shape& shape) {
    CHECK(name.rfind("action_head.model.", 0) == 0);
    ++seen;
    return weight(name, shape);
  });
  CHECK(seen == model.weights().specs().size());
  model.program(DreamZero::Pass::denoise, 2, 3);
  CHECK(seen == model.weights().specs().size());
}

TEST(precisions_that_a_backend_does_not_have_are_refused) {
  const DitConfig c = random_config(false, false);
  DreamZero model(c, {4, 6}, "");
  for (const char* device : {"cpu", "cpu-ops"})
    for (const Precision wanted : {Precision::automatic, Precision::float32}) {
      model.load(make_backend(device, 1), weight, wanted);
      CHECK(model.precision() == Precision::float32);
    }
  for (const Precision wanted : {Precision::int8, Precision::bfloat16}) {
    model.load(make_backend("cpu", 1), weight, wanted);
    CHECK(model.precision() == wanted);
  }
  const auto one_bad = [](const std::string& name, const Shape& shape) {
    Tensor w = weight(name, shape);
    if (name.ends_with("blocks.0.ffn.0.weight")) w.data<float>()[1] = NAN;
    return w;
  };
  CHECK_THROWS(model.load(make_backend("cpu", 1), one_bad, Precision::int8), WeightError, "not finite");
  CHECK_THROWS(model.load(make_backend("cpu", 1), one_bad, Precision::bfloat16), WeightError, "not finite");
  const auto never = [](const std::string&, const Shape&) -> Tensor { throw Error("weights were read"); };
  CHECK_THROWS(model.load(make_backend("cpu", 1), never, Precision::fp8), DeviceError,
               "load: device 'cpu' wants dtype");
  CHECK(precision_of("int8") == Precision::int8 && std::string(name_of(Precision::automatic)) == "auto");
  CHECK_THROWS(precision_of("half"), ConfigError, "got 'half'");
}

TEST(matrices_too_deep_for_exact_sums_are_refused) {
  const auto ones = [](const std::string&, const Shape& shape) {
    Tensor t(shape);
    std::fill_n(t.data<float>(), t.numel(), 1.0f);
    return t;
  };
  for (const int64_t k : {65536, 65537}) {
    WeightTable table;
    table.add("deep.weight", {2, k}, WeightUse::layer_matrix);
    CHECK(PackedWeights(table, ones).precision() == Precision::float32);  // of floats any depth will do
    for (const Precision precision : {Precision::int8, Precision::bfloat16}) {
      if (k == 65536) {
        CHECK(PackedWeights(table, ones, precision).precision() == precision);
        continue;
      }
      const std::string says = std::string(name_of(precision)) + ": deep.weight";
      CHECK_THROWS(PackedWeights(table, ones, precision), WeightError, says);
      CHECK_THROWS(PackedWeights(table, ones, precision), WeightError, "wanted at most 65536 inputs");
    }
  }
}

TEST(bad_requests_are_refused) {
  const DitConfig c = random_config(true, false);
  CHECK_THROWS(DreamZero(c, {4, 4}, ""), ConfigError, "frame_seqlen");
  CHECK_THROWS(make_backend("tpu", 1), DeviceError, "tpu");
  CHECK_THROWS(make_backend("cpu", -1), DeviceError, "threads");
  CHECK_THROWS(make_backend("cpu-ops", 0), DeviceError, "threads must be 1 to 1024, got 0");
  CHECK(make_backend("cpu", {})->threads() == available_cpus());
  CHECK_THROWS(make_backend("cpu", 1'000'000), DeviceError, "got 1000000");
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(make_backend("cpu", 1), weight);
  Denoiser d(model, 1);
  const Inputs in = inputs(c);
  CHECK_THROWS(d.prefill(0, 1, 0, in.first.data(), nullptr), InputError, "missing");
}

// One head of 2 * kMaxHeadDim: more than the kernels have room for.
TEST(heads_that_are_too_wide_are_refused_before_anything_runs) {
  DitConfig c = random_config(true, false);
  c.num_heads = 1, c.dim = 2 * kernels::kMaxHeadDim, c.num_layers = 1;
  for (const char* device : {"cpu", "cpu-ops"}) {
    auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
    const auto load = [&] {
      model->load(make_backend(device, 1), [](const std::string&, const Shape& shape) { return Tensor(shape); });
    };
    CHECK_THROWS(load(), ConfigError, "head_dim must be 1 to 1024, got 2048");
  }
  const std::vector<float> row(2 * kernels::kMaxHeadDim);
  std::vector<float> out(row.size());
  const int64_t wide = 2 * kernels::kMaxHeadDim;
  const kernels::KeySpan span{row.data(), row.data(), 1, wide, wide};
  CHECK_THROWS(make_backend("cpu", 1)->ops().attention({.q = row.data(),
                                                        .out = out.data(),
                                                        .rows = 1,
                                                        .heads = 1,
                                                        .head_dim = wide,
                                                        .spans = &span,
                                                        .span_count = 1}),
               ConfigError, "got 2048");
}

CHECK_MAIN_ON_ISA()
