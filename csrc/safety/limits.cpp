#include "wamcore/limits.h"

#include <cmath>
#include <set>

#include "wamcore/error.h"

namespace wam {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw ConfigError("JointLimits: " + what); }

// Nothing that deserves the name limit is larger or smaller; between them the limiter's arithmetic is exact enough.
constexpr double kLargest = 1e6, kLargestJerk = 1e9, kSmallestRate = 1e-6;

void check_finite(const std::vector<double>& values, const char* what, const JointLimits& limits,
                  double largest = kLargest) {
  if (values.size() != limits.names.size())
    refuse(std::string(what) + " has " + std::to_string(values.size()) + " entries, wanted one for each of the " +
           std::to_string(limits.names.size()) + " joints");
  for (size_t j = 0; j < values.size(); ++j) {
    if (!std::isfinite(values[j])) refuse(std::string(what) + " of joint '" + limits.names[j] + "' is not finite");
    if (std::abs(values[j]) > largest)
      refuse(std::string(what) + " of joint '" + limits.names[j] + "' is " + std::to_string(values[j]) +
             ", wanted at most " + (largest == kLargest ? "1e6" : "1e9") + " in magnitude");
  }
}

void check_rate(const std::vector<double>& values, const char* what, const JointLimits& limits,
                double largest = kLargest) {
  check_finite(values, what, limits, largest);
  for (size_t j = 0; j < values.size(); ++j)
    if (!(values[j] >= kSmallestRate))
      refuse(std::string(what) + " of joint '" + limits.names[j] + "' is " + std::to_string(values[j]) +
             ", wanted a positive number of at least 1e-6");
}

}  // namespace

void JointLimits::validate() const {
  if (names.empty())
    refuse(
        "no joints given, wanted at least one; a checkpoint whose embodiment.json lists no joints does not know what "
        "the robot may do: whoever owns the robot must say");
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) refuse("a joint is named twice");
  check_finite(position_min, "position_min", *this);
  check_finite(position_max, "position_max", *this);
  for (size_t j = 0; j < names.size(); ++j)
    if (!(position_min[j] < position_max[j]))
      refuse("position_min of joint '" + names[j] + "' is " + std::to_string(position_min[j]) +
             ", wanted less than position_max = " + std::to_string(position_max[j]));
  check_rate(velocity, "velocity", *this);
  check_rate(acceleration, "acceleration", *this);
  if (!jerk.empty()) check_rate(jerk, "jerk", *this, kLargestJerk);
}

}  // namespace wam
