#pragma once

#include <vector>

#include "wamcore/embodiment.h"
#include "wamcore/export.h"

namespace wam {

/// Scales channel groups to the model's range and back. Rows have the groups side by side.
class WAMCORE_API Normalizer {
 public:
  explicit Normalizer(std::vector<ChannelGroup> groups);
  int dim() const { return dim_; }

  /// In place, one row [dim]; q99 and min_max results are clipped to [-1, 1].
  void normalize(double* row) const;
  /// In place, [rows, dim], not clipped; with statistics for each step of the horizon, row i uses the i-th.
  /// Throws ShapeError when there are more rows than statistics.
  void denormalize(double* values, int rows) const;
  /// The inverse of denormalize, in place, [rows, dim]; NaN where it has none, because a channel never varies.
  void renormalize(double* values, int rows) const;

 private:
  template <typename Map>
  void each(double* values, int rows, Map map) const;

  std::vector<ChannelGroup> groups_;
  int dim_ = 0;
};

/// Adds the raw state to the relative action groups of every row: q [rows, action_dim], state [state_dim].
WAMCORE_API void add_relative_state(const Embodiment& e, const double* state, double* q, int rows);

}  // namespace wam
