#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "wamcore/error.h"

namespace wam::bindings {

/// Reads keyword arguments into the fields of a struct, one by one. What nobody took is an error.
class Keywords {
 public:
  Keywords(const pybind11::dict& given, std::string who) : left_(given.attr("copy")()), who_(std::move(who)) {}

  /// Sets `field` if the key was given. Throws ConfigError for a value of another type.
  template <typename T>
  Keywords& take(const char* key, T& field) {
    if (!left_.contains(key)) return *this;
    const pybind11::object value = left_.attr("pop")(key);
    try {
      field = value.cast<T>();
    } catch (const pybind11::cast_error&) {
      const auto type = pybind11::type::handle_of(value).attr("__name__").cast<std::string>();
      throw ConfigError(who_ + ": option '" + key + "' does not take a " + type);
    }
    return *this;
  }
  /// Throws ConfigError if a key is left.
  void finish() const {
    for (const auto& [key, value] : left_)
      throw ConfigError(who_ + ": unknown option '" + key.cast<std::string>() + "'");
  }

 private:
  pybind11::dict left_;
  std::string who_;
};

}  // namespace wam::bindings
