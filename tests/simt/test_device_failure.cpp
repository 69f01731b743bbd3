// A device that fails in the middle of a chunk leaves a closed session, never a half-updated one.
#include "backend/cuda/backend.h"
#include "device/small_models.h"
#include "session/dreamzero_model.h"
#include "session/sampler.h"
#include "sim_device.h"
#include "wamcore/session.h"

using namespace wam;
using sim::SimDevice;

namespace {

std::shared_ptr<const Model> tabletop(const std::shared_ptr<SimDevice>& device) {
  return std::make_shared<const DreamZeroModel>(WAMCORE_SOURCE_DIR "/python/wamcore/models/tabletop", LoadOptions{},
                                                nullptr,
                                                std::make_shared<cuda::CudaBackend>(device, make_backend("cpu", 1)));
}

Observation observation(const Model& m) {
  Observation obs;
  for (const CameraSpec& c : m.embodiment().cameras) {
    obs.cameras.push_back({.name = c.name, .frames = 1, .height = c.height, .width = c.width});
    obs.cameras.back().rgb.assign(static_cast<size_t>(c.height * c.width * 3), 100);
  }
  obs.state.assign(static_cast<size_t>(m.embodiment().state_dim()), 0.1);
  return obs;
}

}  // namespace

TEST(a_failed_kernel_closes_the_session_and_is_named) {
  auto device = std::make_shared<SimDevice>();
  const auto m = tabletop(device);
  {
    Session session(m, {.steps = 1, .guidance = 1.0});
    session.set_prompt("touch the red block");
    CHECK_THROWS(session.infer(Observation{}), ShapeError, "state");  // a bad observation closes nothing
    device->fails_in = 20;
    CHECK_THROWS(session.infer(observation(*m)), DeviceError, "SimDevice: kernel ");
    device->fails_in = -1;  // a device that works again does not bring the memory back
    CHECK_THROWS(session.infer(observation(*m)), DeviceError, "closed by an earlier failure: SimDevice: kernel ");
    ActionChunk chunk;
    CHECK_THROWS(session.extend(observation(*m), {}, chunk), DeviceError, "closed");
    CHECK_THROWS(session.set_prompt("touch the blue block"), DeviceError, "closed");
    CHECK_THROWS(session.memory(0), DeviceError, "closed");
    CHECK_THROWS(session.decode(), DeviceError, "closed");
    CHECK_THROWS(session.predicted_latents(), DeviceError, "closed");
  }
  Session prompted(m, {.steps = 1, .guidance = 1.0});  // other sessions of the model go on
  device->fails_in = 3;
  CHECK_THROWS(prompted.set_prompt("touch the red block"), DeviceError, "failed, as asked");
  device->fails_in = -1;
  CHECK_THROWS(prompted.infer(observation(*m)), DeviceError, "closed");
}

TEST(too_little_memory_says_what_is_needed_and_what_would_do) {
  const DitConfig c = small_models::config({true, 2, 64});
  const auto load = [&](const std::shared_ptr<SimDevice>& device) {
    auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{4, 6}, "");
    model->load(std::make_shared<cuda::CudaBackend>(device, make_backend("cpu", 1)), small_models::weight);
    return model;
  };
  auto device = std::make_shared<SimDevice>();
  device->capacity = 100000;
  CHECK_THROWS(load(device), DeviceError, "the transformer's weights need 2 MiB, 1 MiB are free");
  device->capacity = SIZE_MAX;
  {
    const auto model = load(device);
    const size_t weights = device->held;
    // two layers, K and V, 2 heads of 64 in bf16: 1 KiB a row; 6 rows a frame, 7 of text, 9 of the image for all
    const size_t frame = 6 << 10, context = 2 * (7 << 10) + (9 << 10);
    device->capacity = weights + context + 2 * 3 * frame + 100;
    CHECK_THROWS(Denoiser(model, 2), DeviceError, "a local_attn_size of 3 fits, or a guidance of 1");
    CHECK(device->held == weights);  // nothing was allocated for nothing
    device->capacity = SIZE_MAX;
    Denoiser denoiser(model, 2);
    CHECK(device->held == weights + 2 * 5 * frame + context);
    const SampleOptions options{.steps = 1, .guidance = 2.0, .fuse_observation = false};
    Sampler sampler(SampleSchedule(resolve({}, options), options, 2), denoiser);
    for (const int start : {1, 3}) {  // the programs are there: their constants are of the model
      denoiser.pass(DreamZero::Pass::prefill, std::min(start, 2), start - std::min(start, 2));
      denoiser.pass(DreamZero::Pass::denoise, 2, start);
    }
    device->capacity = device->held + 1000;
    CHECK_THROWS(sampler.prepare(), DeviceError, "the workspace of a session's chunks needs");
    device->capacity = SIZE_MAX;
    sampler.prepare();
  }
  CHECK(device->held == 0);
}

CHECK_MAIN()
