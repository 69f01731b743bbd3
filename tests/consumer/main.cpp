// What a robot maker's program needs from an installed wamcore: headers, exported symbols, errors that cross the
// library's border as their own types, and classes of ours that can be derived from.
#include <cstdio>
#include <string>

#include "wamcore/error.h"
#include "wamcore/policy.h"
#include "wamcore/tensor.h"
#include "wamcore/version.h"

namespace {

class HoldStill final : public wam::Policy {
 public:
  void infer(const wam::Observation& obs, wam::ActionChunk& out) override {
    if (obs.state.size() != 7) throw wam::InputError("HoldStill: wanted 7 joints");
    out = {.horizon = 2, .dof = 7, .dt = 0.1, .obs_tick = obs.tick};
    for (int i = 0; i < out.horizon; ++i) out.q.insert(out.q.end(), obs.state.begin(), obs.state.end());
  }
  double dt() const override { return 0.1; }
  int horizon() const override { return 2; }
  int dof() const override { return 7; }
};

}  // namespace

int main() {
  HoldStill policy;
  wam::ActionChunk chunk;
  policy.infer({.state = {0, 1, 2, 3, 4, 5, 6}, .tick = 12}, chunk);
  if (chunk.row(1)[6] != 6.0 || chunk.obs_tick != 12) return 1;

  bool caught = false;
  try {
    wam::numel({-1});  // thrown inside the library
  } catch (const wam::ShapeError& e) {
    caught = std::string(e.what()).find("-1") != std::string::npos;
  }
  if (!caught) return 1;
  std::printf("wamcore %s: %s\n", WAMCORE_VERSION, wam::shape_string({chunk.horizon, chunk.dof}).c_str());
  return 0;
}
