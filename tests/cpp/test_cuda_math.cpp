// The arithmetic of the CUDA kernels one element at a time, by the host's compiler, against float64.
#include "wamcore/kernels/cuda/math.h"

#include <cmath>
#include <limits>

#include "check.h"
#include "fresh.h"
#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/qk_norm_rope_cachewrite.h"

using namespace wam::kernels::cuda;

TEST(bf16_rounds_to_nearest_even) {
  for (int i = 0; i < 100000; ++i) {
    const float x = float(check::uniform(-1, 1) * std::pow(2.0, check::integer(-40, 40)));
    const float y = to_float(to_bf16(x));
    const float up = to_float(bf16{uint16_t(to_bf16(x).bits + 1)}),
                down = to_float(bf16{uint16_t(to_bf16(x).bits - 1)});
    CHECK(std::abs(double(y) - x) <= std::abs(double(up) - x) && std::abs(double(y) - x) <= std::abs(double(down) - x));
  }
  CHECK(to_bf16(1.0f + 1.0f / 256).bits == 0x3f80);  // half way: to the even neighbour
  CHECK(to_bf16(1.0f + 3.0f / 256).bits == 0x3f82);
  CHECK(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
  for (int bits = 0; bits < 0x7f80; ++bits) CHECK(to_bf16(to_float(bf16{uint16_t(bits)})).bits == bits);
}

TEST(activations_are_those_of_float64) {
  for (int i = 0; i < 20000; ++i) {
    const double x = check::uniform(-8, 8);
    const float f = float(x);
    const double t = 0.5 * f * (1 + std::tanh(std::sqrt(2 / M_PI) * (f + 0.044715 * double(f) * f * f)));
    CHECK_NEAR(activate(f, Act::gelu_tanh), t, 1e-6);
    CHECK_NEAR(activate(f, Act::gelu_erf), 0.5 * f * (1 + std::erf(f / std::sqrt(2.0))), 1e-6);
    CHECK_NEAR(activate(f, Act::silu), f / (1 + std::exp(-double(f))), 1e-6);
    CHECK(activate(f, Act::relu) == std::max(f, 0.0f) && activate(f, Act::none) == f);
  }
  for (const Act act : {Act::none, Act::gelu_tanh, Act::gelu_erf, Act::silu, Act::relu})
    CHECK(std::isnan(activate(NAN, act)));
}

TEST(rotation_keeps_length_and_angle) {
  for (int i = 0; i < 1000; ++i) {
    const double r = check::uniform(0.1, 3), phi = check::uniform(-4, 4), turn = check::uniform(-900, 900);
    const Pair p =
        rotate({float(r * std::cos(phi)), float(r * std::sin(phi))}, float(std::cos(turn)), float(std::sin(turn)));
    CHECK_NEAR(p.a, r * std::cos(phi + turn), 2e-6);
    CHECK_NEAR(p.b, r * std::sin(phi + turn), 2e-6);
  }
}

TEST(guidance_of_one_is_the_conditional_velocity) {
  for (int i = 0; i < 100; ++i) {
    const float c = float(check::uniform(-2, 2)), u = float(check::uniform(-2, 2));
    CHECK(guide(c, u, 1.0f) == c);
    CHECK_NEAR(guide(c, u, 5.0f), u + 5.0 * (double(c) - u), 3e-6);
  }
}

TEST(waves_and_norms) {
  for (int i = 0; i < 1000; ++i) {
    const int half = check::integer(1, 2560), k = check::integer(0, half - 1);
    const float t = float(check::integer(0, 999));
    CHECK_NEAR(wave_angle(t, k, half), t * std::pow(10000.0, -double(k) / half), 1e-9);
    const double sum = check::uniform(0.01, 9e4);
    CHECK_NEAR(inverse_root(float(sum), half, 1e-6f) * std::sqrt(double(float(sum)) / half + 1e-6), 1.0, 3e-7);
  }
}

TEST(stored_rows_go_round_the_ring) {
  const CacheSlots s{.begin = {7, 0}, .rows = {3, 4}};
  const int want[] = {7, 8, 9, 0, 1, 2, 3};
  for (int i = 0; i < 7; ++i) CHECK(cache_row(s, i) == want[i]);
}

CHECK_MAIN()
