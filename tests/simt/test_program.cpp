// Whole passes of small DreamZero models as lists of CUDA kernels on the simulated device, against the CPU's plain loop
// over operations: prefill into the ring, denoise with registers, context in two groups.
#include "backend/cuda/backend.h"
#include "backend/cuda/program.h"
#include "flow/denoiser.h"
#include "sim_device.h"
#include "small_dit.h"

using namespace wam;
using namespace sim;

namespace {

struct Result {
  std::vector<float> video, action, keys, values;
};

// A context of five frames, one more than the window keeps beside a block: the ring turns.
Result run(std::shared_ptr<Backend> backend, const DitConfig& c, const Inputs& in,
           Precision precision = Precision::automatic) {
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(std::move(backend), weight, precision);
  Denoiser d(model, 1);
  d.set_text(0, in.text.data());
  if (c.has_clip()) d.set_image(in.image.data());
  d.prefill(0, 1, 0, in.frames[0].data(), in.y.data());
  d.prefill(0, 2, 1, in.frames[1].data(), in.y.data());
  d.prefill(0, 2, 3, in.frames[2].data(), in.y.data());
  Result r;
  r.video.resize(size_t(c.out_dim * 48)), r.action.resize(in.action.size());
  d.denoise(0, 2, 5,
            {.x = in.noise.data(),
             .y = in.y.data(),
             .timesteps = in.t.data(),
             .action = in.action.data(),
             .state = in.state.data(),
             .velocity = r.video.data(),
             .action_velocity = r.action.data()});
  d.memory(0).copy(c.num_layers - 1, r.keys, r.values);
  return r;
}

std::shared_ptr<cuda::CudaBackend> on(const std::shared_ptr<SimDevice>& device) {
  return std::make_shared<cuda::CudaBackend>(device, make_backend("cpu", 1));
}

// Relative l2. Measured on fresh inputs: at most 5.8e-3; twice that is allowed. bf16 keeps 8 bits, and a value is
// rounded some twenty times on its way through two layers.
constexpr double kTolerance = 1.2e-2;
// The same with the layers' products in e4m3, which keeps 4 bits of weights and rows. Measured: at most 4.5e-2.
constexpr double kFp8Tolerance = 9e-2;

}  // namespace

TEST(a_context_and_a_denoise_pass_agree_with_the_cpu) {
  struct Case {
    bool clip;
    int64_t heads, head_dim;
  };
  for (const Case& k : {Case{false, 2, 64}, Case{true, 2, 24}, Case{true, 3, 6}, Case{false, 1, 128}}) {
    const DitConfig c = small_config(k.clip, k.heads, k.head_dim);
    const Inputs in(c);
    auto device = std::make_shared<SimDevice>();
    const Result want = run(make_backend("cpu-ops", 1), c, in), got = run(on(device), c, in);
    const double video = distance(got.video, want.video), action = distance(got.action, want.action),
                 keys = distance(got.keys, want.keys), values = distance(got.values, want.values);
    std::printf("  %d heads of %2d: video %.4f action %.4f keys %.4f values %.4f\n", int(k.heads), int(k.head_dim),
                video, action, keys, values);
    CHECK(video < kTolerance && action < kTolerance && keys < kTolerance && values < kTolerance);
    CHECK(device->blocks == 0);  // everything is given back
    uint64_t launched = 0, counted = 0;
    for (const auto& [name, times] : device->launches) launched += uint64_t(times);
    for (const auto& [name, times] : device->counts()) counted += times;
    CHECK(launched == counted && launched > 0);
  }
}

TEST(divided_keys_give_the_same_pass) {
  const DitConfig c = small_config(true, 2, 64);
  const Inputs in(c);
  auto whole = std::make_shared<SimDevice>(), divided = std::make_shared<SimDevice>();
  divided->splits = 2;
  const Result want = run(on(whole), c, in), got = run(on(divided), c, in);
  CHECK(distance(got.video, want.video) < kTolerance && distance(got.action, want.action) < kTolerance);
  CHECK(got.video != want.video);  // it took another way
}

TEST(a_pass_in_fp8_agrees_with_the_cpu) {
  struct Case {
    bool clip;
    int64_t heads, head_dim;
  };
  for (const Case& k : {Case{true, 2, 64}, Case{false, 2, 24}}) {
    const DitConfig c = small_config(k.clip, k.heads, k.head_dim);
    const Inputs in(c);
    auto device = std::make_shared<SimDevice>();
    const Result want = run(make_backend("cpu-ops", 1), c, in), got = run(on(device), c, in, Precision::fp8);
    const double video = distance(got.video, want.video), action = distance(got.action, want.action),
                 keys = distance(got.keys, want.keys), values = distance(got.values, want.values);
    std::printf("  fp8, %d heads of %2d: video %.4f action %.4f keys %.4f values %.4f\n", int(k.heads), int(k.head_dim),
                video, action, keys, values);
    CHECK(video < kFp8Tolerance && action < kFp8Tolerance && keys < kFp8Tolerance && values < kFp8Tolerance);
    CHECK(device->launches["gemm_fp8"] > 0 && device->blocks == 0);
    if (k.head_dim % 64) continue;  // three products where one could serve all
    // A layer has six products, and two attentions and the GELU before three of them; K/V alone are one. 16 matrices.
    CHECK(device->launches["gemm_fp8"] == 3 * (6 + 1) + 2 * 6);
    CHECK(device->launches["quantize_rows"] == 16 + 3 * 3 + 2 * 3);
  }
}

TEST(launches_and_uploads_of_a_pass_are_counted) {
  // A pass that launches more, or uploads more than its inputs and two small tables, is a regression.
  const DitConfig c = small_config(true, 2, 64);
  const Inputs in(c);
  auto device = std::make_shared<SimDevice>();
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
  model->load(on(device), weight);
  Denoiser d(model, 1);
  d.set_text(0, in.text.data());
  d.set_image(in.image.data());
  const auto pass = [&](auto&& body) {
    device->launches.clear();
    device->uploaded_bytes = 0;
    const int before = device->recordings;
    body();
    int launches = 0;
    for (const auto& [name, count] : device->launches) launches += count;
    return std::tuple(launches, device->recordings - before);
  };
  const auto prefill = [&] { d.prefill(0, 2, 1, in.frames[1].data(), in.y.data()); };
  std::vector<float> video(size_t(c.out_dim * 48)), action(in.action.size());
  const auto denoise = [&] {
    d.denoise(0, 2, 3,
              {.x = in.noise.data(),
               .y = in.y.data(),
               .timesteps = in.t.data(),
               .action = in.action.data(),
               .state = in.state.data(),
               .velocity = video.data(),
               .action_velocity = action.data()});
  };
  // patches 2, time 5; a layer 14: norm, projection, norm and rotation, attention, product; norm, projection, norm, two
  // attentions, product; norm, two products. Without its attention and what follows 3.
  CHECK((pass(prefill) == std::tuple(2 + 5 + 14 + 3, 1)));
  CHECK((pass(prefill) == std::tuple(2 + 5 + 14 + 3, 0)));  // the same list again
  // and action 4, state 2; at the end norm, product, unpatchify, action 2
  CHECK((pass(denoise) == std::tuple(2 + 5 + 4 + 2 + 2 * 14 + 5, 1)));
  CHECK((pass(denoise) == std::tuple(2 + 5 + 4 + 2 + 2 * 14 + 5, 0)));
  const size_t inputs = sizeof(float) * (in.noise.size() + size_t(c.cond_channels() * 48) + in.t.size() +
                                         in.action.size() + in.state.size());
  CHECK(device->uploaded_bytes < inputs + 1024);
  CHECK(device->launches["attention"] == 2 * 3 && device->launches["gemm_plain"] < 15);
}

TEST(sizes_that_kernels_do_not_know_are_refused) {
  const auto refuse = [](int64_t head_dim) {
    const DitConfig c = small_config(false, 1, head_dim);
    auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
    model->load(on(std::make_shared<SimDevice>()), weight);
  };
  CHECK_THROWS(on(std::make_shared<SimDevice>())->load({}, weight, Precision::float32), DeviceError,
               "load: device 'cuda' wants dtype auto, bfloat16 or fp8, got float32");
  auto older = std::make_shared<SimDevice>();
  older->has_fp8 = false;
  CHECK_THROWS(on(older)->load({}, weight, Precision::fp8), DeviceError,
               "load: dtype fp8 wants a GPU of compute capability 9.0 and the kernels for it, got 8.9");
  CHECK_THROWS(refuse(192), ShapeError, "head_dim must be even and at most 128, got 192");
}

CHECK_MAIN()
