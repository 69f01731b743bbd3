#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <string>

// Errors of policies and drivers written in Python, on their way through C++.
namespace wam::bindings {

/// A Ctrl-C hit a callback, and nobody has been told yet. It is not raised again at once: the robot has to be braked
/// and closed first, and that calls Python too.
inline std::atomic<bool> callback_interrupted{false};

/// What a callback raised, in words, while the interpreter lock is held.
inline std::string words_of(const pybind11::error_already_set& e) {
  if (e.matches(PyExc_KeyboardInterrupt)) callback_interrupted = true;
  return e.what();
}

/// Raises the Ctrl-C that hit a callback, if there was one.
inline void raise_interrupt() {
  if (!callback_interrupted.exchange(false)) return;
  PyErr_SetNone(PyExc_KeyboardInterrupt);
  throw pybind11::error_already_set();
}

}  // namespace wam::bindings
