#include "wamcore/error.h"

namespace wam {

// Defined here so that each class has one vtable and exceptions cross library borders.
Error::~Error() = default;
ConfigError::~ConfigError() = default;
WeightError::~WeightError() = default;
ShapeError::~ShapeError() = default;
InputError::~InputError() = default;
DeviceError::~DeviceError() = default;
RobotError::~RobotError() = default;

}  // namespace wam
