#include "wamcore/kinematic_workspace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "wamcore/error.h"

namespace wam {
namespace {

using Vector = std::array<double, 3>;
using Quaternion = std::array<double, 4>;  // w x y z

Vector plus(const Vector& a, const Vector& b) noexcept { return {a[0] + b[0], a[1] + b[1], a[2] + b[2]}; }
Vector minus(const Vector& a, const Vector& b) noexcept { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vector times(const Vector& a, double s) noexcept { return {a[0] * s, a[1] * s, a[2] * s}; }
Vector cross(const Vector& a, const Vector& b) noexcept {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
Quaternion product(const Quaternion& a, const Quaternion& b) noexcept {
  return {a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3], a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
          a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1], a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0]};
}
Vector turned(const Quaternion& q, const Vector& v) noexcept {
  const Vector u{q[1], q[2], q[3]}, t = times(cross(u, v), 2.0);
  return plus(v, plus(times(t, q[0]), cross(u, t)));
}
Quaternion inverse(const Quaternion& q) noexcept { return {q[0], -q[1], -q[2], -q[3]}; }

struct Pose {
  Vector position;
  Quaternion rotation;
};

/// The pose of every frame in the world.
void forward(const std::vector<LinkFrame>& frames, std::span<const double> q, Pose* out) noexcept {
  for (size_t i = 0; i < frames.size(); ++i) {
    const LinkFrame& f = frames[i];
    Pose pose{f.position, f.rotation};
    if (f.parent >= 0) {
      const Pose& above = out[static_cast<size_t>(f.parent)];
      pose = {plus(above.position, turned(above.rotation, f.position)), product(above.rotation, f.rotation)};
    }
    const double moved = f.scale * (f.joint >= 0 ? q[static_cast<size_t>(f.joint)] : 0.0) + f.offset;
    if (f.motion == Motion::hinge) {
      const double s = std::sin(moved / 2);
      pose.rotation = product(pose.rotation, {std::cos(moved / 2), f.axis[0] * s, f.axis[1] * s, f.axis[2] * s});
    } else if (f.motion == Motion::slide) {
      pose.position = plus(pose.position, turned(pose.rotation, times(f.axis, moved)));
    }
    out[i] = pose;
  }
}

/// Where the centre of every sphere is in the world.
void place(const WorkspaceOptions& o, std::span<const double> q, Vector* out) noexcept {
  std::array<Pose, KinematicWorkspace::kMostFrames> poses;
  forward(o.frames, q, poses.data());
  for (size_t i = 0; i < o.spheres.size(); ++i) {
    const Pose& pose = poses[static_cast<size_t>(o.spheres[i].frame)];
    out[i] = plus(pose.position, turned(pose.rotation, o.spheres[i].centre));
  }
}

/// Distance to something that is convex along each of two or three axes, from the distances `d` along them.
template <size_t N>
double corner_distance(const std::array<double, N>& d) noexcept {
  double outside = 0.0, inside = -std::numeric_limits<double>::infinity();
  for (const double x : d) {
    outside += x > 0.0 ? x * x : 0.0;
    inside = x > inside || x != x ? x : inside;
  }
  return inside > 0.0 ? std::sqrt(outside) : inside;
}

/// Signed distance of a point from the surface of a region, m; negative inside.
double distance(const Region& r, const Vector& point) noexcept {
  const Vector p = turned(inverse(r.rotation), minus(point, r.centre));
  switch (r.shape) {
    case RegionShape::half_space:
      return -p[2];
    case RegionShape::box:
      return corner_distance<3>({std::abs(p[0]) - r.size[0], std::abs(p[1]) - r.size[1], std::abs(p[2]) - r.size[2]});
    case RegionShape::cylinder:
      return corner_distance<2>({std::hypot(p[0], p[1]) - r.size[0], std::abs(p[2]) - r.size[1]});
    case RegionShape::sphere:
      return std::hypot(p[0], p[1], p[2]) - r.size[0];
  }
  return std::numeric_limits<double>::quiet_NaN();
}

[[noreturn]] void refuse(const std::string& what) { throw ConfigError("KinematicWorkspace: " + what); }

template <size_t N>
bool finite(const std::array<double, N>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}
template <size_t N>
bool unit(const std::array<double, N>& v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return std::abs(sum - 1.0) < 1e-6;
}

void check(const WorkspaceOptions& o) {
  if (o.dof < 1) refuse("dof wants a positive number");
  if (o.frames.size() > KinematicWorkspace::kMostFrames)
    refuse("wants at most " + std::to_string(KinematicWorkspace::kMostFrames) + " frames, got " +
           std::to_string(o.frames.size()));
  if (!(o.margin >= 0.0 && std::isfinite(o.margin))) refuse("margin wants a number >= 0 m");
  for (size_t i = 0; i < o.frames.size(); ++i) {
    const LinkFrame& f = o.frames[i];
    const std::string who = "frame " + std::to_string(i);
    if (f.parent < -1 || f.parent >= static_cast<int>(i)) refuse(who + " wants an earlier frame as its parent");
    if (f.joint < -1 || f.joint >= o.dof) refuse(who + " wants a joint below dof");
    if (!finite(f.position) || !std::isfinite(f.scale) || !std::isfinite(f.offset))
      refuse(who + " wants finite numbers");
    if (!unit(f.rotation) || !unit(f.axis)) refuse(who + " wants a unit quaternion and a unit axis");
  }
  if (o.spheres.empty() || (o.regions.empty() && o.apart.empty()))
    refuse("wants at least one sphere, and a region or a pair");
  if (o.spheres.size() > KinematicWorkspace::kMostSpheres)
    refuse("wants at most " + std::to_string(KinematicWorkspace::kMostSpheres) + " spheres, got " +
           std::to_string(o.spheres.size()));
  const int spheres = static_cast<int>(o.spheres.size());
  for (const auto& [a, b] : o.apart)
    if (a < 0 || b < 0 || a >= spheres || b >= spheres || a == b) refuse("a pair wants two different spheres");
  for (const BodySphere& s : o.spheres) {
    if (s.frame < 0 || s.frame >= static_cast<int>(o.frames.size())) refuse("a sphere is fixed to no frame");
    if (!finite(s.centre) || !(s.radius >= 0.0 && std::isfinite(s.radius))) refuse("a sphere wants finite numbers");
  }
  for (const Region& r : o.regions) {
    const size_t sizes = r.shape == RegionShape::box        ? 3
                         : r.shape == RegionShape::cylinder ? 2
                         : r.shape == RegionShape::sphere   ? 1
                                                            : 0;
    if (!finite(r.centre) || !unit(r.rotation)) refuse("a region wants a finite centre and a unit quaternion");
    for (size_t k = 0; k < sizes; ++k)
      if (!(r.size[k] > 0.0 && std::isfinite(r.size[k]))) refuse("a region wants positive sizes");
  }
}

}  // namespace

KinematicWorkspace::KinematicWorkspace(WorkspaceOptions options) : options_(std::move(options)) { check(options_); }

double KinematicWorkspace::clearance(std::span<const double> q) const noexcept {
  if (q.size() != static_cast<size_t>(options_.dof)) return std::numeric_limits<double>::quiet_NaN();
  std::array<Vector, kMostSpheres> at;
  place(options_, q, at.data());
  double least = std::numeric_limits<double>::infinity();
  bool numbers = true;  // NaN allows nothing
  const auto note = [&](double room) {
    numbers &= room == room;
    least = std::min(least, room - options_.margin);
  };
  for (size_t i = 0; i < options_.spheres.size(); ++i)
    for (const Region& r : options_.regions)
      note((r.keep_out ? distance(r, at[i]) : -distance(r, at[i])) - options_.spheres[i].radius);
  for (const auto& [a, b] : options_.apart) {
    const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
    const Vector between = minus(at[i], at[j]);
    note(std::hypot(between[0], between[1], between[2]) - options_.spheres[i].radius - options_.spheres[j].radius);
  }
  return numbers ? least : std::numeric_limits<double>::quiet_NaN();
}

std::vector<double> KinematicWorkspace::centres(std::span<const double> q) const {
  if (q.size() != static_cast<size_t>(options_.dof))
    throw ShapeError("KinematicWorkspace.centres: wanted " + std::to_string(options_.dof) + " joints, got " +
                     std::to_string(q.size()));
  std::array<Vector, kMostSpheres> at;
  place(options_, q, at.data());
  std::vector<double> out;
  for (size_t i = 0; i < options_.spheres.size(); ++i) out.insert(out.end(), at[i].begin(), at[i].end());
  return out;
}

}  // namespace wam
