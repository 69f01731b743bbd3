#pragma once

#include <array>
#include <vector>

#include "wamcore/safety.h"

namespace wam {

/// How a frame moves in its parent.
enum class Motion : uint8_t { fixed, hinge, slide };

/// A frame of the robot: it lies at `position` and `rotation` in its parent, then is turned about or shifted along
/// `axis` by scale * q[joint] + offset.
struct LinkFrame {
  int parent = -1;                             // an earlier frame, -1 = the world
  std::array<double, 3> position{};            // m
  std::array<double, 4> rotation{1, 0, 0, 0};  // unit quaternion w x y z
  Motion motion = Motion::fixed;
  int joint = -1;                       // number in q; -1: q counts as 0
  std::array<double, 3> axis{0, 0, 1};  // unit vector
  double scale = 1.0;
  double offset = 0.0;  // rad or m
};

/// A part of the robot: a sphere that is fixed to a frame. A link is a row of them.
struct BodySphere {
  int frame = 0;
  std::array<double, 3> centre{};  // m, in the frame
  double radius = 0.0;             // m
};

/// Convex shapes, in a pose of their own: the half space of positive z; a box; a cylinder about z; a sphere.
enum class RegionShape : uint8_t { half_space, box, cylinder, sphere };

/// Where the robot has to stay, or where it must not be.
struct Region {
  RegionShape shape = RegionShape::box;
  bool keep_out = false;
  std::array<double, 3> centre{};              // m, in the world; of a half space a point on its plane
  std::array<double, 4> rotation{1, 0, 0, 0};  // unit quaternion w x y z
  std::array<double, 3> size{};                // m; box: half edges; cylinder: radius, half height; sphere: radius
};

struct WorkspaceOptions {
  int dof = 0;  // joints of q
  std::vector<LinkFrame> frames;
  std::vector<BodySphere> spheres;
  std::vector<Region> regions;
  std::vector<std::array<int, 2>> apart;  // pairs of spheres that must not touch each other
  double margin = 0.01;  // m that the spheres keep away from every border, and those of a pair from each other
};

/// A workspace of convex regions: every sphere of the robot is inside every region to stay in and outside every region
/// to keep out of, and the spheres of a pair stay apart. Forward kinematics and distances are computed in place: no
/// allocation, no lock, a few microseconds.
class WAMCORE_API KinematicWorkspace final : public Workspace {
 public:
  static constexpr size_t kMostFrames = 128, kMostSpheres = 256;

  /// Throws ConfigError for unusable options.
  explicit KinematicWorkspace(WorkspaceOptions options);

  bool allows(std::span<const double> q) const noexcept override { return clearance(q) >= 0.0; }
  /// The smallest distance of a sphere from what is forbidden to it, less the margin, m; negative: q is forbidden. NaN
  /// for numbers that are none, or another number of joints.
  double clearance(std::span<const double> q) const noexcept;
  /// Centres of the spheres, [spheres, 3] m in the world. Throws ShapeError for another number of joints.
  std::vector<double> centres(std::span<const double> q) const;

 private:
  WorkspaceOptions options_;
};

}  // namespace wam
