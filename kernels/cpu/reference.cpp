// The definitions of the kernels in float64, written for reading. Tests compare every fast version with these.
#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm_bf16.h"
#include "gemm_int8.h"
#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/norm.h"

namespace wam::kernels {
namespace {

double activation(Activation kind, double x) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return x < 0 ? 0 : x;
  }
  return x;
}

// Of the weight of output j and input l.
int64_t place(const GemmParams& p, int64_t j, int64_t l) {
  const int64_t group = p.w.group, steps = (p.k + group - 1) / group;
  return ((j / kPanel * steps + l / group) * kPanel + j % kPanel) * group + l % group;
}

// Sums of rounded x and rounded weights are exact here as they are in the kernels.
double int8_sum(const GemmParams& p, const float* x, int64_t j) {
  uint32_t top = 0;
  for (int64_t l = 0; l < p.k; ++l) top = std::max(top, __builtin_bit_cast(uint32_t, x[l]) & 0x7fffffff);
  const RowScale s = row_scale(top);
  if (s.scale != s.scale) return s.scale;
  int64_t sum = 0;
  for (int64_t l = 0; l < p.k; ++l) sum += std::lrint(x[l] * s.inverse) * p.w.int8[place(p, j, l)];
  return double(sum) * s.scale * p.w.scale[j];
}

}  // namespace

void gemm_ref(const GemmParams& p) {
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = p.bias ? p.bias[j] : 0.0;
      if (p.w.int8) sum += int8_sum(p, p.x + i * p.ldx, j);
      for (int64_t l = 0; l < p.k && !p.w.int8; ++l) {
        const int64_t at = place(p, j, l);
        const float x = p.x[i * p.ldx + l];
        sum += double(p.w.rounds ? __builtin_bit_cast(float, nearest_bf16(x)) : x) *
               (p.w.bf16 ? __builtin_bit_cast(float, uint32_t(p.w.bf16[at]) << 16) : p.w.f32[at]);
      }
      sum = activation(p.activation, sum);
      if (p.gate) sum *= p.gate[(p.gate_row ? p.gate_row[i] : 0) * p.ldg + j];
      if (p.residual) sum += p.residual[i * p.ldr + j];
      p.y[i * p.ldy + j] = float(sum);
    }
}

void attention_ref(const AttentionParams& p) {
  std::vector<const float*> k, v;
  for (int64_t s = 0; s < p.span_count; ++s)
    for (int64_t r = 0; r < p.spans[s].rows; ++r) {
      k.push_back(p.spans[s].k + r * p.spans[s].ldk);
      v.push_back(p.spans[s].v + r * p.spans[s].ldv);
    }
  const size_t keys = k.size();
  std::vector<double> score(keys);
  for (int64_t h = 0; h < p.heads; ++h)
    for (int64_t i = 0; i < p.rows; ++i) {
      double top = -INFINITY, sum = 0;
      for (size_t j = 0; j < keys; ++j) {
        double dot = 0;
        for (int64_t l = 0; l < p.head_dim; ++l)
          dot += double(p.q[i * p.ldq + h * p.head_dim + l]) * k[j][h * p.head_dim + l];
        score[j] = dot * p.scale + (p.bias ? p.bias[(h * p.rows + i) * keys + j] : 0.0f);
        top = std::max(top, score[j]);
      }
      for (double& s : score) sum += s = std::exp(s - top);
      for (int64_t l = 0; l < p.head_dim; ++l) {
        double out = 0;
        for (size_t j = 0; j < keys; ++j) out += score[j] / sum * v[j][h * p.head_dim + l];
        float& y = p.out[i * p.ldo + h * p.head_dim + l];
        y = float(p.accumulate ? y + out : out);
      }
    }
}

void layer_norm_ref(const LayerNormParams& p) {
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* x = p.x + r * p.ldx;
    double mean = 0, var = 0;
    for (int64_t i = 0; i < p.cols; ++i) mean += x[i] / double(p.cols);
    for (int64_t i = 0; i < p.cols; ++i) var += (x[i] - mean) * (x[i] - mean) / double(p.cols);
    const int64_t at = (p.time_row ? p.time_row[r] : 0) * p.ldm;
    for (int64_t i = 0; i < p.cols; ++i) {
      double y = (x[i] - mean) / std::sqrt(var + p.eps);
      if (p.weight) y = y * p.weight[i] + p.bias[i];
      if (p.shift) y = y * (1 + double(p.scale[at + i])) + p.shift[at + i];
      p.y[r * p.ldy + i] = float(y);
    }
  }
}

void qk_norm_rope_ref(const QkNormRopeParams& p) {
  const int64_t width = p.heads * p.head_dim, half = p.head_dim / 2;
  std::vector<double> z(width);
  for (int64_t r = 0; r < p.rows; ++r) {
    double square = 0;
    for (int64_t i = 0; i < width; ++i) square += double(p.x[r * p.ldx + i]) * p.x[r * p.ldx + i];
    const double inv = p.weight ? 1 / std::sqrt(square / width + p.eps) : 1.0;
    for (int64_t i = 0; i < width; ++i) z[i] = p.x[r * p.ldx + i] * inv * (p.weight ? p.weight[i] : 1.0f);
    for (int64_t i = 0; i < width / 2; ++i) {
      const double c = p.cos ? p.cos[r * half + i % half] : 1.0, s = p.cos ? p.sin[r * half + i % half] : 0.0;
      p.y[r * p.ldy + 2 * i] = float(z[2 * i] * c - z[2 * i + 1] * s);
      p.y[r * p.ldy + 2 * i + 1] = float(z[2 * i] * s + z[2 * i + 1] * c);
    }
  }
}

}  // namespace wam::kernels
