#include "flow/step_skip.h"

#include <algorithm>
#include <cmath>

namespace wam {

std::vector<bool> static_step_mask(int executed) {
  std::vector<int> run;
  switch (executed) {
    case 8:
      run = {0, 1, 2, 6, 10, 13, 14, 15};
      break;
    case 7:
      run = {0, 1, 2, 6, 10, 14, 15};
      break;
    case 6:
      run = {0, 1, 5, 10, 14, 15};
      break;
    case 5:
      run = {0, 1, 2, 7, 12};
      break;
    default:
      return {};
  }
  std::vector<bool> mask(16, false);
  for (const int i : run) mask[static_cast<size_t>(i)] = true;
  return mask;
}

StepSkipper::StepSkipper(StepSkip rule, int64_t size) : rule_(std::move(rule)), size_(size) {
  if (rule_.dynamic)
    for (Tensor& t : history_) t = Tensor({size});
}

void StepSkipper::begin() { countdown_ = seen_ = 0; }

double StepSkipper::similarity() const {
  const float *a = history_[0].data<float>(), *b = history_[1].data<float>();
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < size_; ++i) ab += double(a[i]) * b[i], aa += double(a[i]) * a[i], bb += double(b[i]) * b[i];
  return ab / std::max(std::sqrt(aa) * std::sqrt(bb), 1e-8);
}

bool StepSkipper::run(int step) {
  if (!rule_.dynamic) return rule_.mask.empty() || rule_.mask.at(static_cast<size_t>(step));
  if (seen_ < 2) return true;
  if (countdown_ > 1) {
    --countdown_;
    return false;
  }
  if (countdown_ == 1) {  // after a run of skips one step is always run
    countdown_ = 0;
    return true;
  }
  const double c = similarity();
  countdown_ = c > 0.95 ? 4 : c > 0.93 ? 2 : 0;
  return countdown_ == 0;
}

void StepSkipper::executed(const float* velocity) {
  ++seen_;
  if (rule_.dynamic) std::copy(velocity, velocity + size_, history_[seen_ % 2].data<float>());
}

}  // namespace wam
