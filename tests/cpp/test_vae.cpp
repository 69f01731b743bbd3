// The video codec on small random weights: streams, memory, bad input. What it computes is compared in Python.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "fresh.h"
#include "isa_main.h"
#include "model/codecs/vae.h"
#include "wamcore/error.h"

using namespace wam;

namespace {

std::atomic<int64_t> allocations{0};

Tensor randn(const Shape& shape, float scale = 1.0f) {
  std::normal_distribution<float> d(0.0f, scale);
  Tensor t(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = d(check::fresh());
  return t;
}

// Random weights; with `present_only`, every time tap but the last is zero.
WeightSource random_source(bool present_only = false) {
  return [present_only](const std::string&, const Shape& shape) {
    int64_t fan = 1;
    for (size_t i = 1; i < shape.size(); ++i) fan *= shape[i];
    Tensor t = randn(shape, fan == 1 ? 1.0f : 1.0f / std::sqrt(float(fan)));
    if (present_only && shape.size() == 5 && shape[2] > 1) {
      const int64_t area = shape[3] * shape[4];
      for (int64_t i = 0; i < t.numel(); ++i)
        if (i / area % shape[2] != shape[2] - 1) t.data<float>()[i] = 0;
    }
    return t;
  };
}

VaeConfig config(bool wan22, std::vector<bool> temporal) {
  VaeConfig c{.wan22 = wan22,
              .dim = 4,
              .dec_dim = 6,
              .z_dim = 5,
              .dim_mult = {1, 2, 2},
              .num_res_blocks = 1,
              .temporal_downsample = std::move(temporal),
              .patch_size = wan22 ? 2 : 1};
  c.latents_mean = {0.1f, -0.2f, 0.3f, 0.0f, 0.5f};
  c.latents_std = {1.5f, 0.5f, 1.0f, 2.0f, 0.7f};
  return c;
}

Vae make(const VaeConfig& c, bool present_only = false, bool decoder = true) {
  return Vae(c, random_source(present_only), make_backend("cpu-ops", 2), decoder);
}

std::vector<float> encode(const Vae& vae, const Tensor& video, int64_t first, int64_t count, VaeStream& stream) {
  const int64_t h = video.dim(1), w = video.dim(2), s = vae.spatial_stride();
  const int64_t n = vae.latent_frames(count, stream);
  std::vector<float> out(size_t(vae.config().z_dim * n * (h / s) * (w / s)));
  vae.encode({video.data<float>() + first * h * w * 3, count, h, w}, out.data(), stream);
  return out;
}

}  // namespace

void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
void* operator new(size_t n, std::align_val_t a) {
  ++allocations;
  if (void* p = std::aligned_alloc(size_t(a), (n + size_t(a) - 1) / size_t(a) * size_t(a))) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

TEST(a_video_in_pieces_is_the_same_video) {
  for (const bool wan22 : {false, true})
    for (const auto& temporal : {std::vector<bool>{false, true}, {true, true}, {false, false}}) {
      const Vae vae = make(config(wan22, temporal));
      const int64_t stride = vae.temporal_stride(), s = vae.spatial_stride();
      const Tensor video = randn({1 + 3 * stride, 2 * s, 3 * s, 3}, 0.5f);
      VaeStream whole(vae), pieces(vae);
      const auto all = encode(vae, video, 0, video.dim(0), whole);
      CHECK(whole.encoded() == 4);
      std::vector<std::vector<float>> part;
      for (int64_t i = 0; i < 4; ++i)
        part.push_back(encode(vae, video, i ? 1 + (i - 1) * stride : 0, i ? stride : 1, pieces));
      for (int64_t c = 0; c < 5; ++c)
        for (size_t t = 0; t < 4; ++t)
          for (int64_t i = 0; i < 6; ++i)
            CHECK(all[size_t((c * 4 + int64_t(t)) * 6 + i)] == part[t][size_t(c * 6 + i)]);

      std::vector<float> once(size_t(video.numel())), again(once.size());
      vae.decode({all.data(), 4, 2, 3}, once.data(), whole);
      float* out = again.data();
      for (size_t t = 0; t < 4; ++t) {
        const int64_t frames = vae.pixel_frames(1, pieces);
        vae.decode({part[t].data(), 1, 2, 3}, out, pieces);
        out += frames * video.numel() / video.dim(0);
      }
      CHECK(out == again.data() + again.size());
      CHECK(once == again);
      for (const float x : once) CHECK(x >= -1 && x <= 1);
    }
}

TEST(reset_starts_a_new_video) {
  const Vae vae = make(config(true, {false, true}));
  const Tensor video = randn({5, 16, 8, 3});
  VaeStream stream(vae), fresh(vae);
  const auto first = encode(vae, video, 0, 5, stream);
  CHECK(encode(vae, video, 1, 4, stream).size() == 5 * 2 * 2);  // goes on: two latent frames of 2 x 1
  stream.reset();
  CHECK(encode(vae, video, 0, 5, stream) == first);
  CHECK(encode(vae, video, 0, 5, fresh) == first);
}

TEST(without_weights_for_the_past_every_frame_stands_alone) {
  const Vae vae = make(config(true, {false, false}), true);
  const Tensor video = randn({3, 8, 8, 3});
  VaeStream stream(vae), other(vae);
  encode(vae, video, 0, 1, stream);
  encode(vae, video, 1, 1, stream);
  const auto third = encode(vae, video, 2, 1, stream);
  CHECK(third == encode(vae, video, 2, 1, other));
  CHECK(other.bytes() == stream.bytes());  // nothing was kept
}

// What a session relies on when it leaves out frames whose latents it would drop, and the codec when it takes several
// abreast: nine are two groups of four and one.
TEST(frames_alone_have_the_latents_of_the_whole_video) {
  for (const bool wan22 : {false, true})
    for (const auto& temporal : {std::vector<bool>{false, false}, {false, true}, {true, true}})
      for (const bool present_only : {false, true}) {
        const Vae vae = make(config(wan22, temporal), present_only, false);
        const bool alone = present_only && vae.temporal_stride() == 1;
        CHECK(vae.encodes_frames_alone() == alone);
        if (vae.temporal_stride() > 1) continue;
        const int64_t s = vae.spatial_stride(), plane = 2 * 3, frames = 9;
        const Tensor video = randn({frames, 2 * s, 3 * s, 3}, 0.5f);
        VaeStream whole(vae), part(vae);
        const auto all = encode(vae, video, 0, frames, whole);
        bool same = true;
        for (int64_t last = 1; last < frames; ++last) {
          part.reset();
          const auto some = encode(vae, video, frames - last, last, part);
          for (int64_t c = 0; c < 5; ++c)
            same = same && std::equal(&some[size_t(c * last * plane)], &some[size_t(c * last * plane)] + last * plane,
                                      &all[size_t(((c + 1) * frames - last) * plane)]);
        }
        CHECK(same == alone);
      }
}

TEST(one_small_weight_for_the_past_ties_frames_together) {
  for (const char* name : {"encoder.conv1.weight", "encoder.middle.0.residual.6.weight", "encoder.head.2.weight"}) {
    bool found = false;
    const WeightSource rest = random_source(true);
    const Vae vae(
        config(true, {false, false}),
        [&](const std::string& key, const Shape& shape) {
          Tensor t = rest(key, shape);
          if (key == name) found = true, t.data<float>()[0] = 1e-30f;  // [out, in, time, ...]: the oldest tap
          return t;
        },
        make_backend("cpu-ops", 1), false);
    CHECK(found && !vae.encodes_frames_alone());
  }
}

TEST(nothing_is_allocated_after_the_first_call) {
  const Vae vae = make(config(true, {false, true}));
  const Tensor video = randn({9, 16, 24, 3});
  VaeStream stream(vae);
  std::vector<float> latents(size_t(5 * 5 * 2 * 3)), out(size_t(video.numel()));
  for (int round = 0; round < 3; ++round) {
    const int64_t before = allocations;
    stream.reset();
    vae.encode({video.data<float>(), 9, 16, 24}, latents.data(), stream);
    vae.decode({latents.data(), 5, 2, 3}, out.data(), stream);
    CHECK(round == 0 || allocations == before);
    CHECK(round > 0 || allocations > before);  // the counter works
  }
}

TEST(trailing_frames_are_dropped) {
  const Vae vae = make(config(false, {true, true}));
  const VaeStream stream(vae);
  CHECK(vae.latent_frames(0, stream) == 0);
  CHECK(vae.latent_frames(1, stream) == 1);
  CHECK(vae.latent_frames(4, stream) == 1);
  CHECK(vae.latent_frames(5, stream) == 2);
  CHECK(vae.pixel_frames(3, stream) == 9);
}

TEST(bad_input_is_refused) {
  const Vae vae = make(config(true, {false, true}), false, false);
  VaeStream stream(vae);
  const Tensor video = randn({3, 16, 16, 3});
  std::vector<float> out(10000);
  const float* x = video.data<float>();
  CHECK_THROWS(vae.encode({x, 1, 12, 16}, out.data(), stream), ShapeError, "multiples of 8 pixels, got 1 of 12 x 16");
  CHECK_THROWS(vae.encode({x, 0, 16, 16}, out.data(), stream), ShapeError, "got 0 of");
  vae.encode({x, 1, 16, 16}, out.data(), stream);
  CHECK_THROWS(vae.encode({x, 2, 8, 16}, out.data(), stream), ShapeError,
               "the stream has frames of 16 x 16, got 8 x 16");
  stream.reset();
  vae.encode({x, 1, 8, 16}, out.data(), stream);
  CHECK_THROWS(vae.decode({x, 1, 2, 2}, out.data(), stream), WeightError, "decoder was not loaded");
}

TEST(configs_are_checked) {
  const auto parse = [](const char* text) {
    const json::Value value = json::parse(text, "test");
    return VaeConfig::parse({value, "vae_cfg"});
  };
  const char* good =
      R"({"dim": 8, "z_dim": 48, "dim_mult": [1, 2], "num_res_blocks": 1, "temporal_downsample": [true],
      "patch_size": 2})";
  CHECK(parse(good).wan22);
  CHECK(parse(good).dec_dim == 8);
  CHECK(parse(good).latents_mean.size() == 48);
  CHECK_THROWS(
      parse(
          R"({"version": "2.1", "dim": 8, "z_dim": 48, "dim_mult": [1], "num_res_blocks": 1, "temporal_downsample": [],
      "patch_size": 2})"),
      ConfigError, "patch_size does not go with version 2.1");
  CHECK_THROWS(parse(
                   R"({"version": "2.2", "dim": 8, "z_dim": 48, "dim_mult": [1], "num_res_blocks": 1,
      "temporal_downsample": []})"),
               ConfigError, "wants a patch_size");
  CHECK_THROWS(parse(R"({"dim": 8, "z_dim": 7, "dim_mult": [1], "num_res_blocks": 1, "temporal_downsample": []})"),
               ConfigError, "latents_mean is missing");
  CHECK_THROWS(parse(R"({"dim": 8, "z_dim": 16, "dim_mult": [1, 2], "num_res_blocks": 1, "temporal_downsample": []})"),
               ConfigError, "wanted 1 flags");
  CHECK_THROWS(parse(R"({"dim": 8, "z_dim": 16, "dim_mult": [1], "num_res_block": 1, "temporal_downsample": []})"),
               ConfigError, "num_res_block");
  CHECK_THROWS(parse(R"({"dim": 800, "z_dim": 16, "dim_mult": [2], "num_res_blocks": 1, "temporal_downsample": []})"),
               ConfigError, "at most 1024 channels in the middle");
  CHECK_THROWS(make(config(true, {false, true}), false)
                   .keys({.wan22 = true, .dim_mult = {3, 7}, .temporal_downsample = {false}}),
               ConfigError, "does not come out even");
}

CHECK_MAIN_ON_ISA()
