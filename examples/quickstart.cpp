// A model drives a mock robot for two seconds: two threads, every command through the safety filter.
#include <cstdio>

#include "wamcore/mock_hal.h"
#include "wamcore/runner.h"
#include "wamcore/session.h"

int main(int, char** argv) try {  // argv[1]: the folder of the model, here wamcore/models/tabletop of the package
  const auto model = wam::Model::load(argv[1]);
  const auto session = std::make_shared<wam::Session>(model, wam::SampleOptions{.steps = 4});
  session->set_prompt("touch the red block");

  auto mock = wam::MockOptions::like(model->embodiment());
  mock.start = {0.0, 1.2, -1.6, -1.2};  // rad
  const auto robot = std::make_shared<wam::MockHal>(std::make_shared<wam::SystemClock>(), mock);

  wam::Runner runner(session, robot, model->embodiment().limits, {.control_hz = 200});
  runner.start();
  runner.wait(2.0);  // s; throws what stopped a thread
  std::printf("%d chunks, %d refused\n", int(runner.stats().chunks), int(runner.stats().refused_chunks));
  std::printf("the wrist went from %.2f to %.2f rad\n", mock.start[3], robot->position()[3]);
} catch (const std::exception& e) {
  std::printf("stopped: %s\n", e.what());
  return 1;
}
