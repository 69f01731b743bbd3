// Continuing a plan: weights and pull against their formulas, and re-anchoring against the way back.
#include <cmath>

#include "check.h"
#include "flow/prefix_guidance.h"
#include "fresh.h"
#include "session/normalizer.h"

using namespace wam;
using check::integer;
using check::uniform;

namespace {

std::vector<float> weights_of(int frozen, int rows, int horizon) {
  std::vector<float> weights(static_cast<size_t>(horizon), 7.0f);  // what was there before must not shine through
  prefix_weights(frozen, rows, weights);
  return weights;
}

}  // namespace

TEST(weights_are_those_of_the_paper) {
  // start 2, end 6 of 10: the linear part is 4/5, 3/5, 2/5, 1/5
  const std::vector<float> w = weights_of(2, 6, 10);
  const double linear[] = {1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0};
  for (size_t i = 0; i < 10; ++i) {
    const double c = linear[i];
    CHECK_NEAR(w[i], c * (std::exp(c) - 1) / (std::exp(1.0) - 1), 1e-6);
  }
  for (const float v : weights_of(0, 0, 8)) CHECK(v == 0.0f);
  for (const float v : weights_of(9, 8, 8)) CHECK(v == 1.0f);
  for (int round = 0; round < 200; ++round) {
    const int horizon = integer(1, 32), rows = integer(0, 40), frozen = integer(0, 40);
    const std::vector<float> any = weights_of(frozen, rows, horizon);
    for (int i = 0; i < horizon; ++i) {
      const float v = any[static_cast<size_t>(i)];
      CHECK(v >= 0.0f && v <= 1.0f && (i < rows || v == 0.0f) && (i >= std::min(frozen, rows) || v == 1.0f));
      CHECK(i == 0 || v <= any[static_cast<size_t>(i - 1)]);
    }
  }
}

TEST(the_pull_never_goes_beyond_the_target) {
  for (int round = 0; round < 500; ++round) {
    const double sigma = uniform(1e-3, 1), next = uniform(0, sigma), strength = uniform(0, 20);
    const double step = prefix_pull(sigma, next, strength, false), data = prefix_pull(sigma, next, strength, true);
    CHECK(step >= 0 && step <= strength);
    CHECK(prefix_pull(sigma, 0.0, strength, round % 2 == 0) == std::min(strength, 1 / sigma));
    CHECK(data >= 0 && data <= strength && data * sigma <= 1 + 1e-12);
    // one Euler step of a fully weighted row: no further from where the target's own velocity would lead
    const float x = static_cast<float>(uniform(-1, 1)), v = static_cast<float>(uniform(-2, 2)),
                target = static_cast<float>(uniform(-1, 1)), one = 1.0f;
    float out = 0;
    guide_velocity({&target, &one, strength}, sigma, data, &x, &v, &out, 1);
    const double before = target - (x - sigma * v), after = target - (x - sigma * out);
    CHECK(std::abs(after) <= std::abs(before) + 1e-5);
    CHECK_NEAR(out, v - data * before, 1e-4 * (1 + std::abs(data)));
  }
  const float x = 0.3f, v = 0.1f, target = NAN, zero = 0.0f;
  float out = 0;
  guide_velocity({&target, &zero, 5.0}, 0.5, 2.0, &x, &v, &out, 1);
  CHECK(out == v);  // what has no weight is not looked at
}

TEST(scaling_back_is_the_inverse_row_by_row) {
  for (const char* mode : {"q99", "min_max", "mean_std", "none"}) {
    const int rows = 6, dim = 3;
    ChannelGroup g{.key = "joints", .dim = dim, .mode = mode, .relative = true, .per_horizon = true};
    g.statistics.rows = rows, g.statistics.dim = dim;
    for (int i = 0; i < rows * dim; ++i) {
      const double low = uniform(-2, 0), high = low + uniform(0.1, 2);
      g.statistics.q01.push_back(low), g.statistics.min.push_back(low), g.statistics.mean.push_back(low);
      g.statistics.q99.push_back(high), g.statistics.max.push_back(high), g.statistics.std.push_back(high - low);
    }
    if (std::string(mode) == "q99") g.statistics.q99[4] = g.statistics.q01[4];  // row 1, channel 1 never varies
    const Normalizer n({g});
    std::vector<double> x, y;
    for (int i = 0; i < rows * dim; ++i) x.push_back(uniform(-3, 3));  // beyond [-1, 1]: nothing is clipped
    y = x;
    n.denormalize(y.data(), rows);
    n.renormalize(y.data(), rows);
    for (size_t i = 0; i < x.size(); ++i)
      if (std::string(mode) == "q99" && i == 4)
        CHECK(std::isnan(y[i]));
      else
        CHECK_NEAR(y[i], x[i], 1e-9);
  }
}

CHECK_MAIN()
