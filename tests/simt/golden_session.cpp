// A recorded closed loop through a session on the simulated device: pictures, token ids and noise to actions and
// latents, every chunk one recording.
#include "golden.h"
#include "session/dreamzero_model.h"
#include "wamcore/session.h"

namespace golden {

void session(const std::string& file, const std::string& folder, json::Fields fields) {
  Recorded golden(file);
  SampleOptions options;
  std::vector<bool> mask;
  for (const json::Node& run : fields.need("step_mask").array()) mask.push_back(run.boolean());
  options.step_mask = mask;
  options.actions_only = fields.need("actions_only").boolean();
  const auto model = std::make_shared<const DreamZeroModel>(folder, LoadOptions{}, nullptr, simulated());
  Session session(model, options);
  const Noise noise{golden.values("noise_obs"), golden.values("noise_action")};
  int index = 0;
  for (const json::Node& node : fields.need("calls").array()) {
    const std::string call = "call" + std::to_string(index++) + ".";
    json::Fields prompt = node.fields();
    session.set_prompt_tokens(prompt.need("ids").integers(), prompt.need("negative").integers());
    const Tensor images = golden.get(call + "images");  // [frames, height, width, 3], 0 to 255
    CameraFrames camera{.name = "image",
                        .frames = static_cast<int>(images.dim(0)),
                        .height = static_cast<int>(images.dim(1)),
                        .width = static_cast<int>(images.dim(2))};
    for (int64_t i = 0; i < images.numel(); ++i) camera.rgb.push_back(static_cast<uint8_t>(images.data<float>()[i]));
    Observation obs;
    obs.cameras.push_back(std::move(camera));
    for (const float s : golden.values(call + "state")) obs.state.push_back(s);
    const Tensor latents = golden.get(call + "latent_video");
    const ActionChunk chunk = session.infer(obs, &noise, latents ? latents.data<float>() : nullptr);
    compare(call + "action", std::vector<float>(chunk.q.begin(), chunk.q.end()), golden.get(call + "action_pred"));
    if (options.actions_only) continue;
    const Tensor& video = session.predicted_latents();
    compare(call + "video", std::vector<float>(video.data<float>(), video.data<float>() + video.numel()),
            golden.get(call + "video_pred"));
  }
}

}  // namespace golden
