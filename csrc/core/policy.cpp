#include "wamcore/policy.h"

#include "wamcore/error.h"

namespace wam {

Policy::~Policy() = default;

std::vector<int> Policy::frame_offsets() const { return {0}; }

Continuity Policy::continuity() const noexcept { return Continuity::none; }

void Policy::extend(const Observation&, const Continuation&, ActionChunk&) {
  throw RobotError("Policy.extend: this policy cannot continue a motion");
}

uint32_t Policy::epoch() const noexcept { return 0; }

}  // namespace wam
