#include "wamcore/hal.h"

namespace wam {

Hal::~Hal() = default;

Status Hal::frame(int, FrameView&) noexcept { return Status::fault; }

std::string Hal::error() const { return {}; }

}  // namespace wam
