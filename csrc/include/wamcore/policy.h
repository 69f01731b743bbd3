#pragma once

#include <cstdint>
#include <vector>

#include "wamcore/chunk.h"
#include "wamcore/export.h"
#include "wamcore/observation.h"

namespace wam {

/// What is left of the motion in execution, for a chunk that shall continue it.
struct Continuation {
  int rows = 0;           // from the observation's tick on
  int frozen = 0;         // the first of them, up to the one in whose tick the new chunk will take over
  std::vector<double> q;  // [rows, dof] rad, absolute joint targets
};

/// How a policy can continue a motion: not at all; by guiding its sampling toward it; by taking the frozen rows as a
/// clean prefix, which it must have been trained for.
enum class Continuity : uint8_t { none, guided, trained };

/// Anything that turns an observation into a chunk: a Session, or a stand-in in tests. The runner knows only this.
class WAMCORE_API Policy {
 public:
  virtual ~Policy();
  /// Fills `out`, with the tick and time of `obs` in it. Called from one thread at a time; throws Error on bad input
  /// and leaves `out` unspecified.
  virtual void infer(const Observation& obs, ActionChunk& out) = 0;
  /// How extend() continues a motion; `none` means that it is not called.
  virtual Continuity continuity() const noexcept;
  /// As infer(), continuing `plan`. The default throws.
  virtual void extend(const Observation& obs, const Continuation& plan, ActionChunk& out);
  /// Seconds between the rows of a chunk.
  virtual double dt() const = 0;
  /// Rows of a chunk.
  virtual int horizon() const = 0;
  /// Joints per row.
  virtual int dof() const = 0;
  /// Ticks, relative to the observation's, at which the model wants frames: ascending, the last is 0. The default is
  /// the newest frame only.
  virtual std::vector<int> frame_offsets() const;
  /// Epoch of the chunks that count now; it changes at every reset, from any thread. The default never resets.
  virtual uint32_t epoch() const noexcept;
};

}  // namespace wam
