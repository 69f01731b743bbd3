#include "wamcore/policy.h"

namespace wam {

Policy::~Policy() = default;

}  // namespace wam
