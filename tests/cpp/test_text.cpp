// Prompts, the word tokenizer and normalisation.
#include <filesystem>
#include <fstream>
#include <random>

#include "check.h"
#include "session/noise.h"
#include "session/normalizer.h"
#include "session/prompt.h"
#include "session/tokenizer.h"
#include "wamcore/error.h"

using namespace wam;

TEST(prompt_is_lower_cased_and_put_for_every_placeholder) {
  CHECK(format_prompt("a robot {} The robot {}", "Pick up the CUP") ==
        "a robot pick up the cup The robot pick up the cup");
  CHECK(format_prompt("{}", "  a \t b\n") == "a b");
  CHECK(format_prompt("{}", "<LAPA>go<DREAM> on") == "go on");
}

TEST(prompt_unescapes_twice) {
  CHECK(format_prompt("{}", "a&amp;b") == "a&b");
  CHECK(format_prompt("{}", "a&amp;lt;b") == "a<b");
  CHECK(format_prompt("{}", "caf&#233; &#x41;") == "caf\xC3\xA9 A");
  CHECK(format_prompt("{}", "fish & chips &unknown;") == "fish & chips &unknown;");
  CHECK(format_prompt("{}", "a&nbsp;&nbsp;b") == "a b");
}

TEST(prompt_reads_python_literals_as_upstream_does) {
  CHECK(format_prompt("{}", "7") == "7");
  CHECK(format_prompt("{}", "[1, 2]") == "1");
  CHECK(format_prompt("{}", "['Open it', 'close it']") == "open it");
  CHECK(format_prompt("{}", "('a, b', 2)") == "a, b");
  CHECK(format_prompt("{}", "\"Quoted\"") == "quoted");
  CHECK(format_prompt("{}", "[open the box]") == "[open the box]");
  CHECK(format_prompt("{}", "pick 'it' up") == "pick 'it' up");
}

TEST(prompt_refuses_nothing_and_too_much) {
  CHECK_THROWS(format_prompt("{}", ""), InputError, "empty");
  CHECK_THROWS(format_prompt("{}", " \n\t "), InputError, "empty");
  CHECK_THROWS(format_prompt("{}", "''"), InputError, "empty");
  CHECK_THROWS(format_prompt("{}", std::string(100000, 'x')), InputError, "100000");
}

namespace {

std::string file(const std::string& text) {
  const auto path = std::filesystem::temp_directory_path() / "wamcore_test_tokenizer.json";
  std::ofstream(path) << text;
  return path.string();
}

}  // namespace

TEST(word_tokenizer) {
  const std::string good =
      R"({"type":"word","vocab":{"<pad>":0,"<unk>":1,"</s>":2,"red":3,"touch":4},"pad":0,"unk":1,"eos":2})";
  const WordTokenizer t(file(good), 5);
  CHECK((t.encode("Touch the  RED") == std::vector<int64_t>{4, 1, 3, 2}));
  CHECK_THROWS(WordTokenizer(file(good), 4), ConfigError, "vocab");
  CHECK_THROWS(WordTokenizer(file(R"({"type":"bpe"})"), 4), ConfigError, "type");
  CHECK_THROWS(WordTokenizer(file(R"({"type":"word","vocab":{},"pad":0,"unk":0,"eos":null,"x":1})"), 4), ConfigError,
               "x");
}

namespace {

ChannelGroup group(const std::string& mode) {
  ChannelGroup g{.key = "joint", .dim = 3, .mode = mode};
  g.statistics = {.rows = 1,
                  .dim = 3,
                  .min = {-1, 0, 2},
                  .max = {3, 0, 5},
                  .mean = {1, 2, 3},
                  .std = {2, 0, 1},
                  .q01 = {-2, 1, 0},
                  .q99 = {2, 1, 4}};
  return g;
}

}  // namespace

TEST(normalisation_inverts_inside_the_range) {
  std::mt19937 rng(std::random_device{}());
  for (const char* mode : {"q99", "min_max", "mean_std", "none"}) {
    const Normalizer n({group(mode)});
    for (int round = 0; round < 50; ++round) {
      std::uniform_real_distribution<double> u(0.0, 1.0);
      // inside both ranges; the channel without spread is given its one value
      double x[3] = {-1 + 3 * u(rng), mode == std::string("min_max") ? 0.0 : 0.5 * u(rng), 2 + 2 * u(rng)}, y[3];
      std::copy(x, x + 3, y);
      n.normalize(y);
      n.denormalize(y, 1);
      for (int i : {0, 2}) CHECK_NEAR(y[i], x[i], 1e-12);
    }
  }
}

TEST(normalisation_clips_what_goes_in_only) {
  const Normalizer n({group("q99")});
  double x[3] = {100, -7, -100};
  n.normalize(x);
  CHECK(x[0] == 1 && x[1] == -1 && x[2] == -1);
  double y[3] = {2, 0, 0};
  n.denormalize(y, 1);
  CHECK_NEAR(y[0], 4.0, 1e-12);  // beyond q99
}

TEST(statistics_for_each_step_of_the_horizon) {
  ChannelGroup g{.key = "joint", .dim = 1, .mode = "q99", .relative = true, .per_horizon = true};
  g.statistics = {.rows = 2, .dim = 1, .q01 = {-1, -10}, .q99 = {1, 10}};
  const Normalizer n({g});
  double q[2] = {0.5, 0.5};
  n.denormalize(q, 2);
  CHECK_NEAR(q[0], 0.5, 1e-12);
  CHECK_NEAR(q[1], 5.0, 1e-12);
  double more[3] = {};
  CHECK_THROWS(n.denormalize(more, 3), ShapeError, "2 steps");
}

TEST(relative_actions_are_anchored_at_the_state_of_their_key) {
  Embodiment e;
  e.state = {{.key = "gripper", .dim = 1}, {.key = "joint", .dim = 2}};
  e.action = {{.key = "joint", .dim = 2, .relative = true}, {.key = "gripper", .dim = 1}};
  const double state[3] = {9, 1, 2};
  double q[6] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  add_relative_state(e, state, q, 2);
  const double want[6] = {1.1, 2.2, 0.3, 1.4, 2.5, 0.6};
  for (int i = 0; i < 6; ++i) CHECK_NEAR(q[i], want[i], 1e-12);
}

TEST(noise_is_normal_and_repeats) {
  std::vector<float> a(100001), b(100001);
  fill_normal(7, a.data(), int64_t(a.size()));
  fill_normal(7, b.data(), int64_t(b.size()));
  CHECK(a == b);
  fill_normal(8, b.data(), int64_t(b.size()));
  CHECK(a != b);
  double mean = 0, square = 0;
  for (const float x : a) mean += x, square += double(x) * x;
  CHECK_NEAR(mean / double(a.size()), 0.0, 0.02);
  CHECK_NEAR(square / double(a.size()), 1.0, 0.02);
}

CHECK_MAIN()
