#pragma once

// Products with every epilogue on fresh random data: cases that all versions of the kernel share, and what they must
// give.
#include <cmath>
#include <random>
#include <vector>

#include "cuda/device.cuh"
#include "wamcore/kernels/cuda/gemm.h"

namespace gemm_cases {

using namespace wam::kernels::cuda;

struct Case {
  const char* name;
  GemmEpilogue epilogue;
  int m, n, k;
  bool bias = true;
  bool time_rows = true;  // gate_residual: rows of several times, not one
  int parts = 3;          // qkv: places that the columns go to
  int normed = 2;         // qkv: of which so many have sums of squares
  bool gate_base = false;
};

/// Owns all buffers of a case, each its own allocation of exact size; rows are padded where a stride may be larger.
struct Data {
  explicit Data(const Case& c, unsigned seed) : c_(c) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fresh = [&](std::vector<bf16>* v, int64_t count, float size) {
      v->resize(size_t(count));
      for (bf16& value : *v) value = to_bf16(size * normal(random));
    };
    p.epilogue = c.epilogue;
    p.m = c.m, p.n = c.n, p.k = c.k;
    p.ldx = c.k + 8, p.ldw = c.k + 16, p.ldy = c.n + 8, p.ldr = c.n, p.ldg = c.n + 8;
    fresh(&x, (c.m - 1) * p.ldx + c.k, 1.0f);
    fresh(&w, (c.n - 1) * p.ldw + c.k, 1.0f / std::sqrt(float(c.k)));
    // What lies between the rows stands out, so that a column too many shows.
    for (int r = 0; r + 1 < c.m; ++r)
      for (int64_t i = c.k; i < p.ldx; ++i) x[size_t(r * p.ldx + i)] = to_bf16(1000.0f);
    for (int r = 0; r + 1 < c.n; ++r)
      for (int64_t i = c.k; i < p.ldw; ++i) w[size_t(r * p.ldw + i)] = to_bf16(1000.0f);
    p.x = x.data(), p.w = w.data();
    if (c.bias) {
      fresh(&bias, c.n, 1.0f);
      p.bias = bias.data();
    }
    const bf16 nan{0x7fc0};
    if (c.epilogue == GemmEpilogue::qkv) {
      p.parts = c.parts, p.normed = c.normed;
      for (int i = 0; i < c.parts; ++i) {
        p.ld_part[i] = c.n / c.parts + 8 * i;
        part[i].assign(size_t((c.m - 1) * p.ld_part[i] + c.n / c.parts), nan);
        p.part[i] = part[i].data();
      }
      square.assign(size_t(c.m) * size_t(c.normed) * size_t(c.n / c.parts / kSquareStripe), NAN);
      p.square = square.data();
      return;
    }
    y.assign(size_t((c.m - 1) * p.ldy + c.n), nan);
    p.y = y.data();
    if (c.epilogue == GemmEpilogue::gate_residual) {
      fresh(&residual, int64_t{c.m} * c.n, 1.0f);
      p.residual = residual.data();
      const int times = c.time_rows ? 3 : 1;
      gate.resize(size_t((times - 1) * p.ldg + c.n));
      for (float& g : gate) g = normal(random);
      p.gate = gate.data();
      if (c.gate_base) {
        base.resize(size_t(c.n));
        for (float& b : base) b = normal(random);
        p.gate_base = base.data();
      }
      if (c.time_rows) {
        for (int i = 0; i < c.m; ++i) gate_row.push_back(int(random() % unsigned(times)));
        p.gate_row = gate_row.data();
      }
    }
  }

  /// The result in float64, [m, n], for operands x(row, channel) and w(column, channel).
  template <typename X, typename W>
  std::vector<double> reference(X x_at, W w_at) const {
    std::vector<double> out(size_t(c_.m) * c_.n);
    for (int i = 0; i < c_.m; ++i)
      for (int j = 0; j < c_.n; ++j) {
        double sum = c_.bias ? to_float(bias[size_t(j)]) : 0.0;
        for (int l = 0; l < c_.k; ++l) sum += x_at(i, l) * w_at(j, l);
        if (c_.epilogue == GemmEpilogue::bias_gelu)
          sum = 0.5 * sum * (1 + std::tanh(std::sqrt(2 / M_PI) * (sum + 0.044715 * sum * sum * sum)));
        if (c_.epilogue == GemmEpilogue::gate_residual)
          sum = to_float(residual[size_t(i) * c_.n + j]) +
                (double(gate[size_t((gate_row.empty() ? 0 : gate_row[size_t(i)]) * p.ldg + j)]) +
                 (base.empty() ? 0.0 : double(base[size_t(j)]))) *
                    sum;
        out[size_t(i) * c_.n + j] = sum;
      }
    return out;
  }
  std::vector<double> reference() const {
    return reference([&](int i, int l) { return double(to_float(x[size_t(i * p.ldx + l)])); },
                     [&](int j, int l) { return double(to_float(w[size_t(j * p.ldw + l)])); });
  }

  bf16 result(int i, int j) const {
    if (c_.epilogue != GemmEpilogue::qkv) return y[size_t(i * p.ldy + j)];
    const int third = c_.n / c_.parts;
    return part[j / third][size_t(i * p.ld_part[j / third] + j % third)];
  }

  /// Distance to the reference, relative in the l2 norm; NaN counts.
  double error() const { return error(reference()); }
  double error(const std::vector<double>& want) const {
    double difference = 0, norm = 0;
    for (int i = 0; i < c_.m; ++i)
      for (int j = 0; j < c_.n; ++j) {
        const double d = to_float(result(i, j)) - want[size_t(i) * c_.n + j];
        difference += d * d;
        norm += want[size_t(i) * c_.n + j] * want[size_t(i) * c_.n + j];
      }
    return std::sqrt(difference / norm);
  }

  /// Largest relative distance of the sums of squares from those of the stored values.
  double square_error() const {
    double worst = 0;
    const int third = c_.n / c_.parts, stripes = third / kSquareStripe;
    for (int i = 0; i < c_.m; ++i)
      for (int q = 0; q < c_.normed; ++q)
        for (int s = 0; s < stripes; ++s) {
          double sum = 0;
          for (int j = 0; j < kSquareStripe; ++j)
            sum += std::pow(double(to_float(result(i, q * third + s * kSquareStripe + j))), 2);
          const double d = std::abs(square[size_t((i * c_.normed + q) * stripes + s)] - sum) / sum;
          worst = d > worst || d != d ? d : worst;
          if (d != d) return d;
        }
    return worst;
  }

  GemmParams p;

 private:
  Case c_;
  std::vector<bf16> x, w, bias, y, residual, part[3];
  std::vector<float> gate, base, square;
  std::vector<int32_t> gate_row;
};

}  // namespace gemm_cases
