#include "wamcore/observe.h"

#include <algorithm>

#include "wamcore/clock.h"
#include "wamcore/error.h"

namespace wam {

Observation observe(Hal& hal, int64_t tick) { return observe(hal, hal.configure({}), tick); }

Observation observe(Hal& hal, const Description& description, int64_t tick) {
  const size_t dof = description.joints.size();
  Observation obs;
  obs.tick = tick;
  obs.state.resize(dof);
  std::vector<double> dq(dof), tau(dof);
  State state{.q = obs.state, .dq = dq, .tau = tau};
  if (hal.read(state) != Status::ok) throw RobotError("observe: the joints could not be read. " + hal.error());
  const uint64_t now = SystemClock().now_ns();
  obs.t_ns = state.t_ns ? state.t_ns : now;
  for (size_t c = 0; c < description.cameras.size(); ++c) {
    FrameView view;
    const std::string& name = description.cameras[c].name;
    if (hal.frame(static_cast<int>(c), view) != Status::ok || !view.rgb)
      throw RobotError("observe: camera '" + name + "' has no frame. " + hal.error());
    const size_t size = static_cast<size_t>(view.height) * static_cast<size_t>(view.width) * 3;
    obs.cameras.push_back({name, 1, view.height, view.width, {view.rgb, view.rgb + size}});
    obs.t_ns = std::min(obs.t_ns, view.t_ns ? view.t_ns : now);
  }
  return obs;
}

}  // namespace wam
