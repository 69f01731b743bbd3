#include "python_hal.h"

#include <algorithm>

#include "arrays.h"
#include "callback_errors.h"

namespace wam::bindings {
namespace {

std::vector<double> numbers(const py::handle& value, const char* what) {
  const Doubles a = Doubles::ensure(value);
  if (value.is_none() || !a) throw ShapeError(std::string(what) + ": wanted an array [dof], got " + type_of(value));
  return to_vector(a, what);
}

/// What a read returned: a State, joint positions alone, or (positions, velocities).
OwnedState to_state(const py::object& value) {
  if (py::isinstance<OwnedState>(value)) return value.cast<OwnedState>();
  if (py::isinstance<py::tuple>(value) && py::len(value) == 2 && !py::isinstance<py::float_>(value[py::int_(0)]))
    return {.q = numbers(value[py::int_(0)], "q"), .dq = numbers(value[py::int_(1)], "dq")};
  return {.q = numbers(value, "q")};
}

/// None means that all is well; a Status speaks for itself.
Status to_status(const py::object& value) {
  if (value.is_none()) return Status::ok;
  if (py::isinstance<Status>(value)) return value.cast<Status>();
  throw py::type_error("wanted None or a Status, got " + type_of(value));
}

void fill(std::span<double> to, const std::vector<double>& from, const char* what) {
  if (from.empty()) return std::fill(to.begin(), to.end(), 0.0);
  if (from.size() != to.size())
    throw ShapeError(std::string(what) + " wants " + std::to_string(to.size()) + " joints, got " +
                     std::to_string(from.size()));
  std::copy(from.begin(), from.end(), to.begin());
}

}  // namespace

py::function PythonHal::method(const char* name) const {
  py::function f = py::get_override(static_cast<const Hal*>(this), name);
  if (!f) throw RobotError("is not implemented");
  return f;
}

void PythonHal::remember(const char* name, const std::string& what) noexcept {
  const std::scoped_lock lock(mutex_);
  error_ = std::string("Hal.") + name + ": " + what;
}

template <typename Body>
void PythonHal::set_up(const char* name, Body body) {
  const py::gil_scoped_acquire gil;
  try {
    body(method(name));
    return;
  } catch (const py::error_already_set& e) {  // while we still hold the lock
    remember(name, words_of(e));
  } catch (const std::exception& e) {
    remember(name, e.what());
  }
  throw RobotError(error());
}

template <typename Body>
Status PythonHal::real_time(const char* name, Body body) noexcept {
  const py::gil_scoped_acquire gil;
  try {
    return body(method(name));
  } catch (const py::error_already_set& e) {
    remember(name, words_of(e));
  } catch (const std::exception& e) {
    remember(name, e.what());
  }
  return Status::fault;
}

Description PythonHal::configure(const HalConfig& config) {
  Description description;
  set_up("configure", [&](const py::function& f) { description = f(config).cast<Description>(); });
  return description;
}

void PythonHal::activate(Mode mode) {
  unstopped_ = false;
  set_up("activate", [&](const py::function& f) { f(mode); });
}

Status PythonHal::read(State& state) noexcept {
  if (unstopped_) return Status::fault;  // it cannot be braked either: the run ends, and error() says why
  return real_time("read", [&](const py::function& f) {
    const py::object value = f();
    if (py::isinstance<Status>(value)) return value.cast<Status>();
    const OwnedState owned = to_state(value);
    if (owned.q.empty()) throw ShapeError("q: wanted joint positions, got none");
    fill(state.q, owned.q, "q");
    fill(state.dq, owned.dq, "dq");
    fill(state.tau, owned.tau, "tau");
    state.t_ns = owned.t_ns;
    state.fault_bits = owned.fault_bits;
    return Status::ok;
  });
}

Status PythonHal::write(const Command& command) noexcept {
  return real_time("write", [&](const py::function& f) {
    OwnedCommand owned{.q = {command.q.begin(), command.q.end()},
                       .dq = {command.dq.begin(), command.dq.end()},
                       .t_ns = command.t_ns,
                       .valid_until_ns = command.valid_until_ns,
                       .mode = command.mode};
    return to_status(f(std::move(owned)));
  });
}

void PythonHal::deactivate() {
  const bool unstopped = unstopped_.exchange(false);
  const std::string why = error();
  set_up("deactivate", [](const py::function& f) { f(); });
  if (unstopped) throw RobotError(why);
}

void PythonHal::stop(StopKind kind) noexcept {
  const Status status = real_time("stop", [&](const py::function& f) {
    f(kind);
    return Status::ok;
  });
  if (status != Status::ok) unstopped_ = true;
}

void PythonHal::close() noexcept {
  real_time("close", [](const py::function& f) {
    f();
    return Status::ok;
  });
}

Status PythonHal::frame(int camera, FrameView& view) noexcept {
  return real_time("frame", [&](const py::function& f) {
    py::object value = f(camera);
    if (py::isinstance<Status>(value)) return value.cast<Status>();
    view.t_ns = 0;
    if (py::isinstance<py::tuple>(value) && py::len(value) == 2) {
      view.t_ns = value.cast<py::tuple>()[1].cast<uint64_t>();
      value = value.cast<py::tuple>()[0];
    }
    if (!py::isinstance<py::array_t<uint8_t>>(value))
      throw ShapeError("wanted a uint8 array [height, width, 3] or (array, t_ns), got " + type_of(value));
    const auto image = py::array_t<uint8_t, py::array::c_style>::ensure(value);
    if (image.ndim() != 3 || image.shape(2) != 3) throw ShapeError("wanted [height, width, 3], got " + shape_of(image));
    // A copy: the Python side may reuse its buffer as soon as the lock is free.
    std::vector<uint8_t>& kept = images_[camera];
    kept.assign(image.data(), image.data() + image.size());
    view.rgb = kept.data();
    view.height = static_cast<int>(image.shape(0));
    view.width = static_cast<int>(image.shape(1));
    return Status::ok;
  });
}

std::string PythonHal::error() const {
  const std::scoped_lock lock(mutex_);
  return error_;
}

}  // namespace wam::bindings
