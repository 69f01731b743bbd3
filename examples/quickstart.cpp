// A model drives a mock robot for two seconds: two threads, every command through the safety filter.
#include <cstdio>

#include "wamcore/error.h"
#include "wamcore/mock_hal.h"
#include "wamcore/runner.h"
#include "wamcore/session.h"

int main(int, char** argv) try {  // argv[1]: a folder with config.json and *.safetensors
  const auto model = wam::Model::load(argv[1]);
  const auto session = std::make_shared<wam::Session>(model, wam::SampleOptions{.steps = 4});
  session->set_prompt("touch the red block");

  const wam::JointLimits& limits = model->embodiment().limits;
  wam::MockOptions mock;
  for (int j = 0; j < limits.dof(); ++j) {
    mock.joints.push_back({.name = limits.names[j]});
    mock.start.push_back((limits.position_min[j] + limits.position_max[j]) / 2);  // rad
  }
  for (const wam::CameraSpec& c : model->embodiment().cameras) mock.cameras.push_back({c.name, c.height, c.width});
  const auto robot = std::make_shared<wam::MockHal>(std::make_shared<wam::SystemClock>(), mock);

  wam::Runner runner(session, robot, limits, {.control_hz = 200});
  runner.start();
  runner.wait(2.0);  // s; throws what stopped a thread: a mock's grey pictures may well make the filter refuse chunks
  std::printf("%d chunks\n", static_cast<int>(runner.stats().chunks));
} catch (const wam::Error& e) {
  std::printf("stopped: %s\n", e.what());
  return 1;
}
