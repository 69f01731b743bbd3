#include "wamcore/policy.h"

namespace wam {

Policy::~Policy() = default;

std::vector<int> Policy::frame_offsets() const { return {0}; }

uint32_t Policy::epoch() const noexcept { return 0; }

}  // namespace wam
