#include "wamcore/embodiment.h"

#include "io/json.h"

namespace wam {
namespace {

constexpr int kMostPixels = 8192, kMostDim = 4096;

// The statistics a mode needs; any others in the file are known and not used.
struct Field {
  const char* name;
  std::vector<double> ChannelStatistics::*values;
  std::initializer_list<const char*> modes;
};
const Field kFields[] = {{"min", &ChannelStatistics::min, {"min_max", "scale"}},
                         {"max", &ChannelStatistics::max, {"min_max", "scale"}},
                         {"mean", &ChannelStatistics::mean, {"mean_std"}},
                         {"std", &ChannelStatistics::std, {"mean_std"}},
                         {"q01", &ChannelStatistics::q01, {"q99"}},
                         {"q99", &ChannelStatistics::q99, {"q99"}}};

ChannelStatistics read_statistics(const json::Node& node, const ChannelGroup& group) {
  ChannelStatistics out{.dim = group.dim};
  json::Fields f = node.fields();
  const size_t dim = static_cast<size_t>(group.dim);
  for (const Field& field : kFields) {
    bool used = false;
    for (const char* mode : field.modes) used = used || group.mode == mode;
    if (!used) {
      f.ignore({field.name});
      continue;
    }
    const json::Node values = f.need(field.name);
    std::vector<double>& to = out.*field.values;
    if (!group.per_horizon) {
      to = values.numbers(dim);
      continue;
    }
    const std::vector<json::Node> rows = values.array();
    if (rows.empty()) values.fail("wanted a row for each step of the horizon");
    if (out.rows != 1 && out.rows != static_cast<int>(rows.size()))
      values.fail("rows differ from the other statistics");
    out.rows = static_cast<int>(rows.size());
    for (const json::Node& row : rows) {
      const std::vector<double> numbers = row.numbers(dim);
      to.insert(to.end(), numbers.begin(), numbers.end());
    }
  }
  f.finish();
  return out;
}

ChannelGroup read_group(const json::Node& node, bool action) {
  json::Fields f = node.fields();
  ChannelGroup g;
  g.key = f.need("key").string();
  g.dim = static_cast<int>(f.need("dim").integer(1, kMostDim));
  const json::Node mode = f.need("mode");
  mode.choice({"q99", "min_max", "mean_std", "binary", "scale", "none"});
  g.mode = mode.string();
  if (action) {
    g.relative = f.need("relative").boolean();
    g.per_horizon = f.need("per_horizon").boolean();
    if (g.mode == "scale") f.fail("mode scale has no inverse and cannot serve actions");
  }
  if (g.mode != "binary" && g.mode != "none")
    g.statistics = read_statistics(f.need("statistics"), g);
  else
    f.ignore({"statistics"});
  f.finish();
  return g;
}

std::vector<ChannelGroup> read_groups(const json::Node& node, bool action) {
  std::vector<ChannelGroup> out;
  for (const json::Node& n : node.array()) {
    out.push_back(read_group(n, action));
    for (size_t i = 0; i + 1 < out.size(); ++i)
      if (out[i].key == out.back().key) n.fail("key '" + out[i].key + "' twice");
  }
  if (out.empty()) node.fail("wanted at least one group");
  return out;
}

JointLimits read_joints(const json::Node& node) {
  JointLimits limits;
  for (const json::Node& joint : node.array()) {
    json::Fields f = joint.fields();
    limits.names.push_back(f.need("name").string());
    limits.position_min.push_back(f.need("position_min").number());
    limits.position_max.push_back(f.need("position_max").number());
    limits.velocity.push_back(f.need("velocity_max").number());
    limits.acceleration.push_back(f.need("acceleration_max").number());
    if (const auto jerk = f.find("jerk_max")) limits.jerk.push_back(jerk->number());
    f.finish();
  }
  if (limits.dof() > 0) limits.validate();
  return limits;
}

int total(const std::vector<ChannelGroup>& groups) {
  int sum = 0;
  for (const ChannelGroup& g : groups) sum += g.dim;
  return sum;
}

void check(const Embodiment& e, const json::Fields& f) {
  const size_t views = e.composition == "single" ? 1 : 3;
  if (e.cameras.size() != views)
    f.fail("composition " + e.composition + " wants " + std::to_string(views) + " cameras, got " +
           std::to_string(e.cameras.size()));
  if (e.frame_offsets.empty() || e.frame_offsets.back() != 0) f.fail("frame_offsets must end with 0");
  for (size_t i = 1; i < e.frame_offsets.size(); ++i)
    if (e.frame_offsets[i] <= e.frame_offsets[i - 1]) f.fail("frame_offsets must rise");
  for (const ChannelGroup& g : e.action) {
    if (!g.relative) continue;
    bool found = false;
    for (const ChannelGroup& s : e.state) found = found || (s.key == g.key && s.dim == g.dim);
    if (!found) f.fail("action '" + g.key + "' is relative, but there is no state of that key and size");
  }
  if (e.limits.dof() > 0 && e.limits.dof() != e.action_dim())
    f.fail("joints: wanted " + std::to_string(e.action_dim()) + ", one an action channel, got " +
           std::to_string(e.limits.dof()));
}

}  // namespace

int Embodiment::state_dim() const { return total(state); }
int Embodiment::action_dim() const { return total(action); }

Embodiment Embodiment::read(const std::string& path) {
  const json::Value document = json::read(path);
  json::Fields f = json::Node(document, "embodiment").fields();
  Embodiment e;
  e.name = f.need("name").string();
  e.control_hz = f.need("control_hz").number();
  if (!(e.control_hz > 0.0 && e.control_hz <= 10000.0)) f.fail("control_hz must lie in (0, 10000]");
  for (const json::Node& camera : f.need("cameras").array()) {
    json::Fields c = camera.fields();
    e.cameras.push_back({c.need("name").string(), static_cast<int>(c.need("height").integer(1, kMostPixels)),
                         static_cast<int>(c.need("width").integer(1, kMostPixels))});
    c.finish();
  }
  const json::Node composition = f.need("composition");
  composition.choice({"single", "droid", "grid"});
  e.composition = composition.string();
  e.crop_scale = f.need("crop_scale").number();
  if (!(e.crop_scale > 0.0 && e.crop_scale <= 1.0)) f.fail("crop_scale must lie in (0, 1]");
  const std::vector<json::Node> view = f.need("view_hw").array(2);
  e.view_hw = {static_cast<int>(view[0].integer(1, kMostPixels)), static_cast<int>(view[1].integer(1, kMostPixels))};
  for (const json::Node& offset : f.need("frame_offsets").array())
    e.frame_offsets.push_back(static_cast<int>(offset.integer(-100000, 0)));
  e.state = read_groups(f.need("state"), false);
  e.action = read_groups(f.need("action"), true);
  e.limits = read_joints(f.need("joints"));
  e.prompt_template = f.need("prompt_template").string();
  f.finish();
  check(e, f);
  return e;
}

}  // namespace wam
