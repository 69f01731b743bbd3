// Whole passes of small DreamZero models as lists of CUDA kernels on the simulated device, against the CPU's plain loop
// over operations: prefill into the ring, denoise with registers, context in two groups.
#include "backend/cuda/backend.h"
#include "backend/cuda/program.h"
#include "backend/cuda/refusal.h"
#include "cuda/attention_sm90.cuh"
#include "device/small_models.h"
#include "sim_device.h"

using namespace wam;
using namespace sim;
using namespace small_models;

namespace {

std::shared_ptr<cuda::CudaBackend> on(const std::shared_ptr<SimDevice>& device) {
  return std::make_shared<cuda::CudaBackend>(device, make_backend("cpu", 1));
}

// Relative l2. Measured on fresh inputs: at most 5.8e-3; twice that is allowed. bf16 keeps 8 bits, and a value is
// rounded some twenty times on its way through two layers.
constexpr double kTolerance = 1.2e-2;
// The same with the layers' products in e4m3, which keeps 4 bits of weights and rows. Measured: at most 4.5e-2.
constexpr double kFp8Tolerance = 9e-2;

// Whether everything that a pass gives is within `tolerance` of what the CPU gave; prints how far it is.
bool agrees(const std::string& what, const Result& got, const Result& want, double tolerance) {
  const double video = distance(got.video, want.video), action = distance(got.action, want.action),
               keys = distance(got.keys, want.keys), values = distance(got.values, want.values);
  std::printf("  %s: video %.4f action %.4f keys %.4f values %.4f\n", what.c_str(), video, action, keys, values);
  return video < tolerance && action < tolerance && keys < tolerance && values < tolerance;
}

std::string heads_of(const Size& k) { return std::to_string(k.heads) + " heads of " + std::to_string(k.head_dim); }

}  // namespace

TEST(a_context_and_a_denoise_pass_agree_with_the_cpu) {
  for (const Size& k : {Size{false, 2, 64}, Size{true, 2, 24}, Size{true, 3, 6}, Size{false, 1, 128}}) {
    const DitConfig c = config(k);
    const Inputs in(c, k, sim::seed());
    auto device = std::make_shared<SimDevice>();
    const Result want = run(make_backend("cpu-ops", 1), c, k, in), got = run(on(device), c, k, in);
    CHECK(agrees(heads_of(k), got, want, kTolerance));
    CHECK(device->blocks == 0);  // everything is given back
    uint64_t launched = 0, counted = 0;
    for (const auto& [name, times] : device->launches) launched += uint64_t(times);
    for (const auto& [name, times] : device->counts()) counted += times;
    CHECK(launched == counted && launched > 0);
  }
}

TEST(divided_keys_give_the_same_pass) {
  const Size size{true, 2, 64};
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
  auto whole = std::make_shared<SimDevice>(), divided = std::make_shared<SimDevice>();
  divided->splits = 2;
  const Result want = run(on(whole), c, size, in), got = run(on(divided), c, size, in);
  CHECK(distance(got.video, want.video) < kTolerance && distance(got.action, want.action) < kTolerance);
  CHECK(got.video != want.video);  // it took another way
}

namespace {

// A device whose products and attentions are those of sm_90a, which read by tensor maps, whole tiles at a time. Its
// memory begins as zeros: that is what those kernels are promised.
class HopperDevice final : public SimDevice {
 public:
  void* allocate(size_t bytes) override {
    void* p = SimDevice::allocate(bytes);
    std::memset(p, 0, bytes);
    return p;
  }
  int refused = 0;

 protected:
  bool start(const Call& call, const Launcher& l) override {
    constexpr int kMultiprocessors = 2;
    if (const auto* p = std::get_if<AttentionParams>(&call)) {
      AttentionParamsSm90 plan;
      const PlanResult result = make_attention_plan_sm90(&plan, *p, kMultiprocessors);
      if (result == 0) return launch_attention_sm90(plan, l);
      ++refused;
      detour("attention", cuda::refusal(*p, result));
    }
    if (const auto* p = std::get_if<GemmParams>(&call)) {
      GemmParamsSm90 plan;
      const PlanResult result = plan_gemm_sm90(&plan, *p, /*tile=*/2, kMultiprocessors);
      if (result == 0) return launch_gemm_sm90(plan, l);
      ++refused;
      detour("gemm", cuda::refusal(*p, result));
    }
    return SimDevice::start(call, l);
  }
};

}  // namespace

TEST(a_pass_with_the_kernels_of_sm_90a_agrees_with_the_cpu) {
  const Size size{true, 2, 24};  // heads padded to 64
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
  auto device = std::make_shared<HopperDevice>();
  const Result want = run(make_backend("cpu-ops", 1), c, size, in), got = run(on(device), c, size, in);
  CHECK(agrees("sm_90a", got, want, kTolerance));
  CHECK(device->refused == 0);  // nothing went the other way
}

TEST(a_pass_whose_tensor_maps_the_driver_refuses_is_the_same_and_says_so) {
  const Size size{true, 2, 24};
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
  auto device = std::make_shared<HopperDevice>();
  const auto backend = on(device);
  const Result want = run(make_backend("cpu-ops", 1), c, size, in);
  tensor_map_refusal = 801;
  const Result got = run(backend, c, size, in);
  tensor_map_refusal = 0;
  CHECK(agrees("refused", got, want, kTolerance));
  CHECK(device->refused == device->launches["gemm"] + device->launches["attention"] && device->refused > 0);
  std::map<std::string, std::string> listed;
  for (const OperationReport& o : backend->operations()) listed[o.operation] = o.kernel;
  const auto says = [&](const char* kernel) {
    return listed.at(kernel).starts_with("cuda, some by mma.sync: no tensor map for ") &&
           listed.at(kernel).ends_with(": the driver's error 801");
  };
  CHECK(says("gemm") && says("attention") && listed.at("gemm_plain") == "cuda");
}

TEST(a_pass_in_fp8_agrees_with_the_cpu) {
  for (const Size& k : {Size{true, 2, 64}, Size{false, 2, 24}}) {
    const DitConfig c = config(k);
    const Inputs in(c, k, sim::seed());
    auto device = std::make_shared<SimDevice>();
    const Result want = run(make_backend("cpu-ops", 1), c, k, in), got = run(on(device), c, k, in, 1, Precision::fp8);
    CHECK(agrees("fp8, " + heads_of(k), got, want, kFp8Tolerance));
    CHECK(device->launches["gemm_fp8"] > 0 && device->blocks == 0);
    if (k.head_dim % 64) continue;  // three products where one could serve all
    // A layer has six products, and two attentions and the GELU before three of them; K/V alone are one. 16 matrices.
    CHECK(device->launches["gemm_fp8"] == 3 * (6 + 1) + 2 * 6);
    CHECK(device->launches["quantize_rows"] == 16 + 3 * 3 + 2 * 3);
  }
}

TEST(launches_and_uploads_of_a_pass_are_counted) {
  // A pass that launches more, or uploads more than its inputs and two small tables, is a regression.
  const Size size{true, 2, 64};
  const DitConfig c = config(size);
  const Inputs in(c, size, sim::seed());
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

TEST(a_kernel_that_took_another_way_is_listed_with_the_reason) {
  auto device = std::make_shared<SimDevice>();
  const auto backend = on(device);
  device->count({{"gemm", 3}, {"attention", 2}});
  device->detour("gemm", "no tensor map for 24 x 128 x 64");
  std::map<std::string, std::string> listed;
  for (const OperationReport& o : backend->operations()) listed[o.operation] = o.kernel;
  CHECK(listed.at("gemm") == "cuda, some by mma.sync: no tensor map for 24 x 128 x 64");
  CHECK(listed.at("attention") == "cuda");
}

TEST(sizes_that_kernels_do_not_know_are_refused) {
  const auto refuse = [](int64_t head_dim) {
    const DitConfig c = config({false, 1, head_dim});
    auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
    model->load(on(std::make_shared<SimDevice>()), weight);
  };
  CHECK_THROWS(on(std::make_shared<SimDevice>())->load({}, weight, Precision::float32), DeviceError,
               "load: device 'cuda' wants dtype auto, bfloat16 or fp8, got float32");
  auto older = std::make_shared<SimDevice>();
  older->has_fp8 = false;
  CHECK_THROWS(on(older)->load({}, weight, Precision::fp8), DeviceError,
               "load: dtype fp8 wants a GPU of compute capability 8.9 or later, got 8.0");
  CHECK_THROWS(refuse(192), ShapeError, "head_dim must be even and at most 128, got 192");
}

CHECK_MAIN()
