#include "wamcore/kernels/embed.h"

#include <cmath>

#include "activation.h"
#include "variants.h"

namespace wam::kernels {
namespace {

template <Isa>
[[gnu::always_inline]] inline void activation_rows_loop(const ActivationParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* y = p.y + row * p.ldy;
    for (int64_t j = 0; j < p.cols; ++j) y[j] = p.x[row * p.ldx + j];
    activate(p.activation, y, p.cols);
  }
}
WAMCORE_VARIANTS(activation_rows, (const ActivationParams& p, int64_t begin, int64_t end), (p, begin, end))

// The columns come in repeats of time_cols, each one run of additions.
template <Isa>
[[gnu::always_inline]] inline void modulation_cols_loop(const ModulationParams& p, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t first = begin; first < end;) {
      const int64_t at = first % p.time_cols, n = std::min(end - first, p.time_cols - at);
      const float *table = p.table + first, *time = p.time + r * p.ldt + at;
      float* out = p.out + r * p.ldo + first;
      for (int64_t j = 0; j < n; ++j) out[j] = table[j] + time[j];
      first += n;
    }
}
WAMCORE_VARIANTS(modulation_cols, (const ModulationParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void activation(const ActivationParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows);
  activation_rows(p, begin, end);
}

void sinusoid(const SinusoidParams& p, const Team& team) {
  const int64_t half = p.cols / 2;
  const auto [begin, end] = team.share(p.rows);
  for (int64_t i = begin; i < end; ++i) {
    float* row = p.out + i * p.ldo;
    if (p.row && i > begin && p.row[i] == p.row[i - 1]) {  // all actions of a block share their timestep
      std::copy(row - p.ldo, row - p.ldo + 2 * half, row);
      continue;
    }
    const double t = p.t[p.row ? p.row[i] : i];
    float *c = row + (p.cos_first ? 0 : half), *s = row + (p.cos_first ? half : 0);
    for (int64_t k = 0; k < half; ++k) {
      const double angle = t * std::pow(10000.0, -static_cast<double>(k) / static_cast<double>(half));
      c[k] = static_cast<float>(std::cos(angle));
      s[k] = static_cast<float>(std::sin(angle));
    }
  }
}

void patchify(const PatchifyParams& p, const Team& team) {
  const int64_t rows = p.height / 2, cols = p.width / 2;
  const auto [begin, end] = team.share(p.frames * rows * cols);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t f = token / (rows * cols), r = token / cols % rows, c = token % cols;
    float* out = p.out + token * p.ldo;
    for (int64_t s = 0; s < p.count; ++s)
      for (int64_t ch = 0; ch < p.channels[s]; ++ch) {
        const float* x = p.sources[s] + ((ch * p.frames + f) * p.height + 2 * r) * p.width + 2 * c;
        *out++ = x[0];
        *out++ = x[1];
        *out++ = x[p.width];
        *out++ = x[p.width + 1];
      }
  }
}

void unpatchify(const UnpatchifyParams& p, const Team& team) {
  const int64_t rows = p.height / 2, cols = p.width / 2;
  const auto [begin, end] = team.share(p.frames * rows * cols);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t f = token / (rows * cols), r = token / cols % rows, c = token % cols;
    const float* x = p.x + token * p.ldx;
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t ch = 0; ch < p.channels; ++ch)
        p.out[((ch * p.frames + f) * p.height + 2 * r + i / 2) * p.width + 2 * c + i % 2] = x[i * p.channels + ch];
  }
}

void modulation(const ModulationParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.cols, 16);
  modulation_cols(p, begin, end);
}

void combine(const CombineParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.n, 16);
  for (int64_t i = begin; i < end; ++i) {
    double sum = 0.0;  // float64: the update subtracts nearly equal terms at small steps
    for (int t = 0; t < p.count; ++t) sum += p.coefficient[t] * p.term[t][i];
    p.out[i] = static_cast<float>(sum);
  }
}

}  // namespace wam::kernels
