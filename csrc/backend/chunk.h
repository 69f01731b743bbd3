#pragma once

#include <span>
#include <vector>

#include "backend/plan.h"
#include "backend/views.h"

namespace wam {

class Program;

// A chunk is what a robot asks for: observed frames into memory, then the steps of a flow, each a pass of the model or
// a velocity used again, and the solver's update. Whoever knows flows describes it with these structs; a backend that
// can run it without the host makes one list of it.

/// A solver step of one modality as the numbers it multiplies with:
///   m0 = data_x x + data_v v
///   c  = fix_x x + fix_last last + fix_m0 m0 + fix_m1 m1 + fix_m2 m2      (m1, m2: m0 of the two steps before)
///   x' = next_x c + next_m0 m0 + next_m1 m1
/// where `last` is c of the step before.
struct SolverStep {
  double data_x = 1.0, data_v = 0.0;
  double fix_x = 1.0, fix_last = 0.0, fix_m0 = 0.0, fix_m1 = 0.0, fix_m2 = 0.0;
  double next_x = 1.0, next_m0 = 0.0, next_m1 = 0.0;
};

/// What the solver does to one modality.
struct ChunkModality {
  std::vector<SolverStep> steps;  // fewer than the chunk's steps: then it stays where it has arrived
  std::vector<double> sigma;      // [chunk's steps], noise level at which each begins
  int64_t count = 0;              // numbers
  // Element e belongs to frame (e / area) % frames; frames from `held` on stay as they are. area 0: nothing is held.
  int64_t area = 0, frames = 1, held = 1;
};

/// A program with the buffers it wants bound; kNone where the pass has no such array.
struct ChunkPass {
  const Program* program = nullptr;
  BufferId clean = kNone, clean_condition = kNone;  // observed frames, for a pass that remembers them
  BufferId noisy = kNone, condition = kNone, action = kNone, state = kNone, timesteps = kNone;
  BufferId velocity = kNone, action_velocity = kNone;
};

struct ChunkStep {
  bool run = true;               // the model; else the last velocity is used again
  bool guided = false;           // the unconditional branch is run as well
  ChunkPass pass = {};           // where the model is run
  std::vector<float> timesteps;  // of that pass
};

/// A kind of chunk of one session: everything that is the same whenever it is run. Pointers must outlive the sampler.
struct ChunkSpec {
  ChunkPass update;  // remembers the observed frames, in every branch; no program: a step does it
  std::vector<ChunkStep> steps;
  ChunkModality video, action;
  double guidance = 1.0;  // of the video
  // [branches], conditional first: where each branch's memory lies, and as `read` how much of it is going to be seen
  std::vector<MemoryView> memory;
  std::vector<ContextView> context;  // [branches]
};

/// What is new in every chunk.
struct ChunkInputs {
  const float *clean = nullptr, *clean_condition = nullptr;  // observed frames
  const float *condition = nullptr, *state = nullptr;        // of the frames that are sampled
  const float *video_noise = nullptr, *action_noise = nullptr;
  const MemoryView* stored = nullptr;  // of the pass that remembers; all branches' are alike
  const MemoryView* read = nullptr;    // of the others
  // The actions' velocity v becomes v - pull (target - (x - sigma v)) weight. Empty: nothing pulls.
  std::span<const float> pull;                       // [steps]
  const float *target = nullptr, *weight = nullptr;  // [action.count]
};

/// Runs whole chunks of one session on the device: one upload, one recorded list, one download.
class ChunkSampler {
 public:
  virtual ~ChunkSampler() = default;
  /// A chunk of the kind specs[chunk]; results [video.count] and [action.count]. Throws DeviceError.
  virtual void run(size_t chunk, const ChunkInputs& in, float* video, float* action) = 0;
};

}  // namespace wam
