// Other families laid out on the same segments, long before they run: if one of them does not fit, the IR is wrong.
#include <set>

#include "check.h"
#include "model/planner.h"
#include "wamcore/error.h"

using namespace wam;

namespace {

Coords video_coords(int64_t frames, int64_t rows, int64_t cols, double first) {
  Coords c{.split = {44, 42, 42}, .position = {}};
  for (int64_t f = 0; f < frames; ++f)
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < cols; ++x)
        for (const double p : {first + double(f), double(y), double(x)}) c.position.push_back(p);
  return c;
}

Segment video(const std::string& name, int64_t frames, double first, int32_t time_row, int64_t rows = 7,
              int64_t cols = 14) {
  Segment s{.name = name,
            .tokens = frames * rows * cols,
            .entry = Entry::patch,
            .in_features = 48,
            .exit = Exit::adaln_linear,
            .out_features = 48,
            .grid = {frames, 2 * rows, 2 * cols},
            .coords = video_coords(frames, rows, cols, first)};
  s.time_row.assign(size_t(s.tokens), time_row);
  return s;
}

void check_span(const QuerySpan& s, int64_t begin, int64_t rows, bool memory, int64_t key_begin, int64_t key_rows) {
  CHECK(s.begin == begin && s.rows == rows);
  CHECK(s.keys.size() == size_t(memory) + size_t(key_rows > 0));
  if (memory) CHECK(s.keys[0].memory);
  if (key_rows > 0) CHECK(s.keys.back().begin == key_begin && s.keys.back().rows == key_rows);
}

// ---- Fast-WAM (LIBERO): a wide video expert and a narrow action expert, one joint attention.
const ExpertSpec kVideoExpert{.prefix = "mixtures.video.",
                              .dim = 3072,
                              .heads = 24,
                              .head_dim = 128,
                              .layers = 30,
                              .ffn_dim = 14336,
                              .freq_dim = 256};
const ExpertSpec kActionExpert{.prefix = "mixtures.action.",
                               .dim = 1024,
                               .heads = 24,
                               .head_dim = 128,
                               .layers = 30,
                               .ffn_dim = 4096,
                               .freq_dim = 256};
const ContextSpec kTextAndProprio{.rows = 129, .in_features = 4096};  // the last row changes every chunk

Segment fastwam_action(int32_t time_row) {
  Segment s{.name = "action",
            .modality = Modality::action,
            .expert = 1,
            .tokens = 32,
            .entry = Entry::linear,
            .in_features = 7,
            .exit = Exit::linear,
            .out_features = 7,
            .coords = {.split = {128}}};
  for (int i = 0; i < 32; ++i) s.coords.position.push_back(i);
  s.time_row.assign(32, time_row);
  return s;
}

Layout video_prefill(int64_t frames) {  // K/V of clean frames; policy mode: one frame, IDM stage 2: all
  Layout l{
      .name = "video prefill", .segments = {video("video", frames, 0, 0)}, .attend = AttendTable(1), .want = Want::kv};
  l.segments[0].store = l.segments[0].clean = true;
  l.attend.allow(0, 0);
  return l;
}

Layout action_step() {
  Layout l{.name = "action step", .segments = {fastwam_action(0)}, .attend = AttendTable(1)};
  l.attend.allow(0, 0);
  l.attend.allow_memory(0);
  return l;
}

Layout joint_step() {
  Layout l{.name = "joint",
           .segments = {video("first", 1, 0, 0), video("future", 2, 1, 1), fastwam_action(1)},
           .attend = AttendTable(3),
           .time_rows = 2};
  l.segments[0].clean = true;
  for (auto [q, k] : std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 2}})
    l.attend.allow(q, k);
  return l;
}

int64_t rows_of(const Plan& p, const std::string& name) { return p.buffers[size_t(p.buffer(name))].rows; }
int64_t cols_of(const Plan& p, const std::string& name) { return p.buffers[size_t(p.buffer(name))].cols; }

}  // namespace

TEST(fastwam_policy_prefills_once_and_steps_the_action_expert) {
  const Layout prefill = video_prefill(1), step = action_step();
  CHECK(prefill.tokens() == 98);
  auto spans = compile_attention(prefill);
  CHECK(spans.size() == 1);
  check_span(spans[0], 0, 98, true, 0, 0);
  spans = compile_attention(step);
  CHECK(spans.size() == 1);
  check_span(spans[0], 0, 32, true, 0, 32);

  WeightTable weights;
  Planner planner({kVideoExpert, kActionExpert}, {kTextAndProprio}, weights);
  const Plan a = planner.forward(prefill), b = planner.forward(step);
  CHECK(cols_of(a, "hidden0") == 3072 && cols_of(a, "q") == 3072);
  CHECK(rows_of(b, "hidden0") == 32 && cols_of(b, "hidden0") == 1024 && cols_of(b, "q") == 3072);
  // The last layer of a prefill makes K/V and nothing else.
  const auto* last = std::get_if<SelfAttentionNode>(&a.nodes.back());
  CHECK(last && last->kv_only && last->layer == 29 && last->store_rows == 98);
}

TEST(fastwam_joint_is_one_attention_over_two_experts) {
  const auto spans = compile_attention(joint_step());
  CHECK(spans.size() == 3);
  check_span(spans[0], 0, 98, false, 0, 98);
  check_span(spans[1], 98, 196, false, 0, 294);
  check_span(spans[2], 294, 32, false, 0, 326);
  WeightTable weights;
  Planner planner({kVideoExpert, kActionExpert}, {kTextAndProprio}, weights);
  const Plan plan = planner.forward(joint_step());
  CHECK(rows_of(plan, "hidden0") == 294 && rows_of(plan, "hidden1") == 32 && rows_of(plan, "q") == 326);
  planner.text_context(0);
  CHECK(weights.specs().size() == 1649);  // every tensor of the released file
}

TEST(fastwam_idm_reads_the_whole_imagined_video) {
  const auto spans = compile_attention(video_prefill(3));
  CHECK(spans.size() == 1 && spans[0].rows == 294);
  WeightTable weights;
  Planner planner({kVideoExpert, kActionExpert}, {kTextAndProprio}, weights);
  CHECK(rows_of(planner.forward(video_prefill(3)), "hidden0") == 294);
  CHECK(compile_attention(action_step())[0].keys[0].memory);
}

// ---- LingBot-VA (RoboTwin): one backbone, a video pass and an action pass that meet in memory.
namespace {

std::string diffusers_key(std::string k, bool action) {
  const auto swap = [&](const std::string& from, const std::string& to) {
    const size_t at = k.find(from);
    if (at != std::string::npos) k.replace(at, from.size(), to);
  };
  const std::string time = action ? "condition_embedder_action." : "condition_embedder.";
  swap("time_embedding.0", time + "time_embedder.linear_1"), swap("time_embedding.2", time + "time_embedder.linear_2");
  swap("time_projection.1", time + "time_proj");
  swap("text_embedding.0", "condition_embedder.text_embedder.linear_1");
  swap("text_embedding.2", "condition_embedder.text_embedder.linear_2");
  swap("patch_embedding", "patch_embedding_mlp"), swap("action_encoder", "action_embedder");
  swap("head.head", action ? "action_proj_out" : "proj_out"), swap("head.modulation", "scale_shift_table");
  for (const char* part : {"q.", "k.", "v."})
    for (const char* attn : {"self_attn.", "cross_attn."})
      swap(std::string(attn) + part, std::string(attn) + "to_" + part);
  swap("self_attn.o.", "self_attn.to_out.0."), swap("cross_attn.o.", "cross_attn.to_out.0.");
  swap("self_attn", "attn1"), swap("cross_attn", "attn2"), swap("norm3", "norm2");
  swap("ffn.0", "ffn.net.0.proj"), swap("ffn.2", "ffn.net.2"), swap(".modulation", ".scale_shift_table");
  return k;
}

}  // namespace

TEST(lingbot_chunk_alternates_video_and_action_through_memory) {
  const int64_t frame0 = 6, frames = 2, per_frame = 16;
  Layout video_pass{
      .name = "video", .segments = {video("video", frames, double(frame0), 0, 12, 10)}, .attend = AttendTable(1)};
  video_pass.attend.allow(0, 0), video_pass.attend.allow_memory(0);
  Segment action{.name = "action",
                 .modality = Modality::action,
                 .tokens = frames * per_frame,
                 .entry = Entry::linear,
                 .in_features = 30,
                 .exit = Exit::adaln_linear,
                 .out_features = 30,
                 .coords = {.split = {44, 42, 42}}};
  for (int64_t f = 0; f < frames; ++f)
    for (int64_t j = 0; j < per_frame; ++j)  // fractional frames, negative space
      for (const double p : {double(frame0 + f) + double(j + 1) / double(per_frame + 1), -1.0, -1.0})
        action.coords.position.push_back(p);
  action.time_row.assign(size_t(action.tokens), 0);
  Layout action_pass{.name = "action", .segments = {action}, .attend = AttendTable(1)};
  action_pass.attend.allow(0, 0), action_pass.attend.allow_memory(0);
  check_span(compile_attention(video_pass)[0], 0, 240, true, 0, 240);
  check_span(compile_attention(action_pass)[0], 0, 32, true, 0, 32);

  const ExpertSpec backbone{.dim = 3072,
                            .heads = 24,
                            .head_dim = 128,
                            .layers = 30,
                            .ffn_dim = 14336,
                            .freq_dim = 256,
                            .patch_is_linear = true};
  WeightTable weights;
  Planner planner({backbone}, {{.rows = 512, .in_features = 4096}}, weights);
  planner.key = [](const std::string& k) { return diffusers_key(k, false); };
  planner.forward(video_pass);
  planner.text_context(0);
  planner.key = [](const std::string& k) { return diffusers_key(k, true); };
  const Plan plan = planner.forward(action_pass);
  CHECK(cols_of(plan, "action.out") == 30);
  // All 839 tensors but the action copy of the text embedder, which the release carries and never uses.
  CHECK(weights.specs().size() == 839 - 4);
  std::set<std::string> names;
  for (const WeightSpec& w : weights.specs()) names.insert(w.name);
  for (const char* k :
       {"blocks.29.attn1.to_out.0.weight", "blocks.0.attn2.norm_k.weight", "blocks.7.ffn.net.0.proj.bias",
        "condition_embedder_action.time_embedder.linear_2.weight", "action_proj_out.bias", "scale_shift_table"})
    CHECK(names.count(k));
  // The rotation of a fractional frame: first pair of token 0, angle 6 + 1/17.
  CHECK_NEAR(plan.ropes[0].cos[0], std::cos(6.0 + 1.0 / 17.0), 1e-6);
  CHECK_NEAR(plan.ropes[0].sin[22], std::sin(-1.0), 1e-6);
}

TEST(bad_layouts_are_refused) {
  Layout l = joint_step();
  l.segments[1].time_row.pop_back();
  CHECK_THROWS(compile_attention(l), ShapeError, "time row");
  l = joint_step();
  l.segments[1].time_row[0] = 2;
  CHECK_THROWS(compile_attention(l), ShapeError, "out of range");
  l = joint_step();
  std::swap(l.segments[0], l.segments[2]);
  CHECK_THROWS(compile_attention(l), ShapeError, "lie together");
  l = joint_step();
  l.attend = AttendTable(3);
  CHECK_THROWS(compile_attention(l), ShapeError, "sees nothing");
  l = joint_step();
  l.segments[0].coords.split = {64, 32, 16};
  CHECK_THROWS(rope_table(l, 128), ShapeError, "head_dim 128");
  l = joint_step();
  l.segments[0].grid.frames = 2;
  CHECK_THROWS(compile_attention(l), ShapeError, "grid");
}

CHECK_MAIN()
