#pragma once

#include <stdexcept>

#include "wamcore/export.h"

namespace wam {

/// Base of everything set-up code throws. The message names the function, what it wanted and what it got.
class WAMCORE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Error() override;
};

/// A configuration file or option is unknown, missing or contradictory.
class WAMCORE_API ConfigError : public Error {
 public:
  using Error::Error;
  ~ConfigError() override;
};

/// A weight file is malformed, or its tensors do not fit the model.
class WAMCORE_API WeightError : public Error {
 public:
  using Error::Error;
  ~WeightError() override;
};

/// An array has the wrong shape or element type.
class WAMCORE_API ShapeError : public Error {
 public:
  using Error::Error;
  ~ShapeError() override;
};

/// An observation, prompt or option given at run time is not usable.
class WAMCORE_API InputError : public Error {
 public:
  using Error::Error;
  ~InputError() override;
};

/// A compute device or backend is missing or failed.
class WAMCORE_API DeviceError : public Error {
 public:
  using Error::Error;
  ~DeviceError() override;
};

/// A robot driver or a runner thread failed.
class WAMCORE_API RobotError : public Error {
 public:
  using Error::Error;
  ~RobotError() override;
};

}  // namespace wam
