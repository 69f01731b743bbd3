// Schedules, solvers, step skipping and the memory ring.
#include <random>

#include "backend/backend.h"
#include "check.h"
#include "flow/memory.h"
#include "flow/schedule.h"
#include "flow/solver.h"
#include "flow/step_skip.h"
#include "wamcore/error.h"

using namespace wam;

TEST(timesteps_of_the_release) {
  const std::vector<int> sixteen = {999, 986, 972, 955, 937, 916, 892, 865, 833, 795, 749, 694, 624, 535, 416, 249};
  CHECK(flow_schedule(16, 5.0, kFirstUnipc).timestep == sixteen);
  const FlowSchedule four = flow_schedule(4, 5.0, kFirstUnipc);
  CHECK((four.timestep == std::vector<int>{999, 937, 833, 624}));
  CHECK((flow_schedule(1, 5.0, kFirstUnipc).timestep == std::vector<int>{999}));
  CHECK((flow_schedule(4, 5.0, kFirstEuler).timestep == std::vector<int>{1000, 937, 833, 625}));
  const FlowSchedule s = decoupled_schedule(four, 0.8);
  CHECK_NEAR(s.sigma.back(), 0.8, 1e-12);
  CHECK_NEAR(s.sigma.front(), four.sigma.front(), 1e-12);
  CHECK_THROWS(flow_schedule(0, 5.0, 1.0), ConfigError, "steps");
  CHECK_THROWS(flow_schedule(1000000, 5.0, 1.0), ConfigError, "1000000");
  CHECK_THROWS(flow_schedule(4, -1.0, 1.0), ConfigError, "shift");
  CHECK_THROWS(decoupled_schedule(s, 1.5), ConfigError, "final_noise");
}

// The flow from noise to one fixed point has velocity (x - data) / sigma: any solver must land on the data.
TEST(solvers_reach_the_data_of_a_straight_flow) {
  auto backend = make_backend("cpu", 1);
  std::mt19937 rng(std::random_device{}());
  std::normal_distribution<float> normal;
  for (const SolverKind kind : {SolverKind::unipc, SolverKind::euler})
    for (const int steps : {1, 2, 3, 5, 16}) {
      const double begin = kind == SolverKind::unipc ? kFirstUnipc : kFirstEuler;
      const FlowSchedule s = flow_schedule(steps, 5.0, begin);
      std::vector<float> data(40), x(40), v(40);
      for (size_t i = 0; i < data.size(); ++i) data[i] = normal(rng), x[i] = normal(rng);
      Solver solver(kind, s.sigma, 40);
      for (int i = 0; i < steps; ++i) {
        const float sigma = float(s.sigma[size_t(i)]);
        for (size_t j = 0; j < x.size(); ++j) v[j] = (x[j] - data[j]) / sigma;
        solver.step(i, x.data(), v.data(), backend->ops());
      }
      CHECK(check::relative_error(x, data, x.size()) < 1e-4);
    }
}

TEST(static_masks) {
  const auto mask = static_step_mask(5);
  CHECK(mask.size() == 16 && mask[0] && mask[1] && mask[2] && mask[7] && mask[12] && !mask[15]);
  CHECK(static_step_mask(16).empty());
}

TEST(dynamic_skipping_counts_down) {
  StepSkipper skip({.mask = {}, .dynamic = true}, 2);
  skip.begin();
  const float a[] = {1.0f, 0.0f}, b[] = {0.0f, 1.0f}, near[] = {1.0f, 0.36f};  // cos(a, near) = 0.94
  CHECK(skip.run(0));
  skip.executed(a);
  CHECK(skip.run(1));
  skip.executed(a);
  // Equal velocities: four skips, then one step that is run whatever they say.
  for (int i = 2; i < 6; ++i) CHECK(!skip.run(i));
  CHECK(skip.run(6));
  skip.executed(near);
  for (int i = 7; i < 9; ++i) CHECK(!skip.run(i));
  CHECK(skip.run(9));
  skip.executed(b);
  CHECK(skip.run(10));
  skip.begin();
  CHECK(skip.run(0));
}

namespace {

// Fills the slots a view says to write with the frame's id.
void write(const MemoryView& view, int64_t inner, int64_t frame_rows, float first_id) {
  float id = first_id;
  for (int i = 0; i < view.writes; ++i)
    for (int64_t row = 0; row < view.write[i].rows; ++row) {
      std::fill_n(view.k[0] + (view.write[i].begin + row) * inner, inner, id);
      if (row % frame_rows == frame_rows - 1) id += 1;
    }
}

}  // namespace

TEST(memory_evicts_the_oldest_frame_and_keeps_order) {
  Memory memory({.layers = 1, .inner = 2, .frame_rows = 3, .window = 4}, make_backend("cpu", 1));
  std::vector<float> k, v;
  write(memory.store(0, 1, Origin::observed), 2, 3, 0);
  for (int block = 0; block < 5; ++block) {
    const int64_t first = 1 + 2 * block;
    write(memory.store(first, 2, Origin::observed), 2, 3, float(first));
    memory.copy(0, k, v);
    CHECK(memory.frames().size() == size_t(block == 0 ? 3 : 4));
    for (size_t i = 0; i < memory.frames().size(); ++i) {
      CHECK(k[i * 6] == float(memory.frames()[i].id));
      CHECK(memory.frames()[i].id == first + 2 - int64_t(memory.frames().size()) + int64_t(i));
    }
  }
  const MemoryView two = memory.read(2);
  int64_t rows = 0;
  for (int i = 0; i < two.reads; ++i) rows += two.read[i].rows;
  CHECK(rows == 6);
  CHECK(memory.read(0).reads == 0);
}

TEST(memory_replaces_a_prediction_by_the_observation) {
  Memory memory({.layers = 1, .inner = 2, .frame_rows = 1, .window = 5}, make_backend("cpu", 1));
  memory.store(0, 1, Origin::observed);
  memory.store(1, 2, Origin::predicted);
  CHECK(memory.frames()[2].origin == Origin::predicted);
  const MemoryView view = memory.replace(1, 2, Origin::observed);
  CHECK(memory.frames()[1].origin == Origin::observed && memory.frames()[2].origin == Origin::observed);
  CHECK(view.writes == 1 && view.write[0].begin == 1 && view.write[0].rows == 2);
  CHECK_THROWS(memory.replace(2, 2, Origin::observed), InputError, "not in memory");
  CHECK_THROWS(memory.store(3, 6, Origin::observed), InputError, "1 to 5");
  memory.clear();
  CHECK(memory.frames().empty());
}

CHECK_MAIN()
