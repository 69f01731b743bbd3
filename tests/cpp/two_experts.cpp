// A joint pass over two experts of different width, as Fast-WAM lays it out (test_layout.cpp), small enough to run: the
// fused program against the plain loop over operations.
#include <random>

#include "backend/backend.h"
#include "check.h"
#include "fresh.h"
#include "model/planner.h"

using namespace wam;

namespace {

std::mt19937 rng(uint32_t(check::fresh()()));
int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }

struct Joint {
  std::vector<ExpertSpec> experts;
  ContextSpec text;
  Layout layout;
};

Segment video(const std::string& name, int64_t frames, int64_t first, int32_t time_row, int64_t channels) {
  Segment s{.name = name,
            .tokens = frames * 6,
            .entry = Entry::patch,
            .in_features = channels,
            .exit = Exit::adaln_linear,
            .out_features = channels,
            .grid = {frames, 4, 6},
            .coords = {.split = {4, 2, 2}, .position = {}}};
  for (int64_t f = 0; f < frames; ++f)
    for (int64_t i = 0; i < 6; ++i)
      for (const int64_t p : {first + f, i / 3, i % 3}) s.coords.position.push_back(double(p));
  s.time_row.assign(size_t(s.tokens), time_row);
  return s;
}

Joint random_joint() {
  const int64_t heads = pick(1, 3), layers = pick(1, 3), channels = pick(1, 5), actions = pick(1, 9);
  const auto expert = [&](const char* prefix) {
    return ExpertSpec{.prefix = prefix,
                      .dim = pick(5, 40),
                      .heads = heads,
                      .head_dim = 8,
                      .layers = layers,
                      .ffn_dim = pick(5, 60),
                      .freq_dim = 2 * pick(2, 20)};
  };
  Joint j{.experts = {expert("video."), expert("action.")}, .text = {.rows = pick(1, 9), .in_features = pick(1, 20)}};
  Segment action{.name = "action",
                 .modality = Modality::action,
                 .expert = 1,
                 .tokens = actions,
                 .entry = Entry::linear,
                 .in_features = 7,
                 .exit = Exit::linear,
                 .out_features = 7,
                 .coords = {.split = {8}, .position = {}}};
  for (int64_t i = 0; i < actions; ++i) action.coords.position.push_back(double(i));
  action.time_row.assign(size_t(actions), 1);
  j.layout = {.name = "joint",
              .segments = {video("first", 1, 0, 0, channels), video("future", 2, 1, 1, channels), action},
              .attend = AttendTable(3),
              .time_rows = 2};
  j.layout.segments[0].clean = true;
  for (const auto& [query, key] :
       std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 2}})
    j.layout.attend.allow(query, key);
  return j;
}

// What depends on the name alone is the same on every backend.
Tensor named(const std::string& name, const Shape& shape, float size) {
  std::mt19937 mine(static_cast<uint32_t>(std::hash<std::string>{}(name)));
  std::normal_distribution<float> d(0.0f, size);
  Tensor t(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = d(mine);
  return t;
}

// Every external buffer by name, outputs as the pass left them.
using Outputs = std::vector<std::pair<std::string, std::vector<float>>>;

Outputs run(const Joint& j, const char* device, int threads, Precision precision, const std::string& seed) {
  WeightTable table;
  const Planner planner(j.experts, {j.text}, table);
  Plan plans[] = {planner.text_context(0), planner.forward(j.layout)};
  const std::shared_ptr<Backend> backend = make_backend(device, threads);
  const auto weights = backend->load(
      table, [](const std::string& name, const Shape& shape) { return named(name, shape, 0.3f); }, precision);
  CHECK(weights->precision() == precision);
  const ExpertSpec& e = j.experts[0];
  std::vector<std::shared_ptr<float>> keys;
  std::vector<ContextView::Group> groups;
  for (size_t i = 0; i < j.experts.size(); ++i) {
    for (int kv = 0; kv < 2; ++kv) keys.push_back(backend->allocate_keys(e.layers * j.text.rows, e.heads, e.head_dim));
    groups.push_back({.k = keys[2 * i].get(), .v = keys[2 * i + 1].get(), .rows = j.text.rows});
  }
  const ContextView context{groups, 1};
  Outputs out;
  for (Plan& plan : plans) {
    std::vector<Tensor> buffers;
    std::vector<float*> external;
    for (const BufferSpec& b : plan.buffers) {
      if (b.external) buffers.push_back(named(seed + b.name, {b.rows, b.cols}, b.name == "timesteps" ? 300.0f : 1.0f));
      external.push_back(b.external ? buffers.back().data<float>() : nullptr);
    }
    const std::vector<BufferSpec> specs = plan.buffers;
    const std::unique_ptr<Program> program = backend->compile(std::move(plan), weights);
    const std::shared_ptr<float> workspace = backend->allocate_workspace(program->workspace_floats());
    program->run({.external = external, .context = &context, .workspace = workspace.get()});
    for (size_t i = 0; i < specs.size(); ++i)
      if (specs[i].name.ends_with(".out"))
        out.emplace_back(specs[i].name, std::vector(external[i], external[i] + specs[i].rows * specs[i].cols));
  }
  uint64_t fused = 0;
  for (const OperationReport& o : backend->operations()) fused += o.operation == "feed_forward" ? o.runs : 0;
  CHECK((fused > 0) == (std::string(device) == "cpu"));  // the pass is wide enough for every thread to have rows
  return out;
}

// Sums over several models: one number may be small by chance.
struct Apart {
  double difference = 0, size = 0;
  void add(const Outputs& a, const Outputs& b) {
    CHECK(a.size() == 3 && b.size() == 3);  // two pieces of video and the actions
    for (size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i].first == b[i].first && a[i].second.size() == b[i].second.size());
      for (size_t n = 0; n < a[i].second.size(); ++n) {
        difference += std::pow(double(a[i].second[n]) - double(b[i].second[n]), 2);
        size += std::pow(double(b[i].second[n]), 2);
      }
    }
  }
  double relative() const { return std::sqrt(difference / size); }
};

}  // namespace

TEST(two_experts_run_alike_in_both_programs) {
  Apart exact, rounded, of_float;
  for (int round = 0; round < 12; ++round) {
    const Joint j = random_joint();
    const int threads = 1 + round % 3;
    const std::string seed = std::to_string(rng());
    const Outputs plain = run(j, "cpu-ops", 1, Precision::float32, seed),
                  bytes = run(j, "cpu-ops", 1, Precision::int8, seed);
    exact.add(run(j, "cpu", threads, Precision::float32, seed), plain);
    exact.add(run(j, "cpu-ops", threads, Precision::float32, seed), plain);
    rounded.add(run(j, "cpu", threads, Precision::int8, seed), bytes);
    of_float.add(bytes, plain);
  }
  std::printf("two experts: float32 %.2g, int8 %.2g, int8 of float32 %.2g\n", exact.relative(), rounded.relative(),
              of_float.relative());
  CHECK(exact.relative() < 1e-5);
  CHECK(rounded.relative() < 5e-3);
  CHECK(of_float.relative() < 8e-2);
  CHECK(of_float.relative() > 1e-5);  // something was rounded
}

// The actions see the video and the video does not see them: what each expert reads is its own and the right one's.
TEST(two_experts_see_what_the_table_says) {
  const Joint j = random_joint();
  Joint blind = j;
  blind.layout.attend = AttendTable(3);
  for (size_t i = 0; i < 3; ++i) blind.layout.attend.allow(i, i);
  blind.layout.attend.allow(1, 0);
  for (const char* device : {"cpu", "cpu-ops"}) {
    const Outputs all = run(j, device, 2, Precision::float32, "a"),
                  own = run(blind, device, 2, Precision::float32, "a");
    for (size_t i = 0; i < 3; ++i) CHECK((all[i].second == own[i].second) == (all[i].first != "action.out"));
  }
}
