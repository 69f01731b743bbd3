#pragma once

#include <cmath>
#include <cstring>

#include "amx_panels.h"
#include "check.h"

struct EmulatedTile {
  int rows = 0, bytes = 0;
  alignas(64) int8_t data[16][64] = {};
};
struct EmulatedState {
  bool configured = false;
  EmulatedTile tiles[8];
};

/// AMX's tiles in memory: the interface that the kernels use of the CPU's, with every rule of the instructions checked.
/// What the CPU would answer with an exception is counted in `wrongs`.
struct EmulatedTiles {
  static inline EmulatedState state;
  static inline int wrongs = 0, configurations = 0, dots = 0;
  static bool needs(bool right) {
    wrongs += !right;
    return right;
  }

  static void configure(const wam::kernels::TileConfig& config) {
    ++configurations;
    bool valid = config.palette == 1 && config.start_row == 0;
    for (const uint8_t byte : config.reserved) valid &= byte == 0;
    for (int t = 0; t < 16; ++t) {
      valid &= (config.rows[t] == 0) == (config.bytes[t] == 0);
      valid &= t < 8 ? config.rows[t] <= 16 && config.bytes[t] <= 64 : config.rows[t] == 0;
    }
    if (!needs(valid)) return;
    state = {.configured = true};
    for (int t = 0; t < 8; ++t) state.tiles[t].rows = config.rows[t], state.tiles[t].bytes = config.bytes[t];
  }
  static void release() { state = {}; }

  template <int kTile>
  static void zero() {
    EmulatedTile& t = state.tiles[kTile];
    if (needs(state.configured && t.rows > 0)) std::memset(t.data, 0, sizeof t.data);
  }
  template <int kTile>
  static void load(const int8_t* from, int64_t stride) {
    EmulatedTile& t = state.tiles[kTile];
    if (!needs(state.configured && t.rows > 0)) return;
    std::memset(t.data, 0, sizeof t.data);
    for (int r = 0; r < t.rows; ++r) std::memcpy(t.data[r], from + r * stride, size_t(t.bytes));
  }
  template <int kTile>
  static void store(int8_t* to, int64_t stride) {
    const EmulatedTile& t = state.tiles[kTile];
    if (!needs(state.configured && t.rows > 0)) return;
    for (int r = 0; r < t.rows; ++r) std::memcpy(to + r * stride, t.data[r], size_t(t.bytes));
  }
  template <int kTo, int kX, int kW>
  static void dot_bytes() {
    dot<kTo, kX, kW, int32_t>([](const int8_t* x, const int8_t* w, int32_t sum) {
      for (int i = 0; i < 4; ++i) sum = int32_t(uint32_t(sum) + uint32_t(int32_t(x[i]) * int32_t(w[i])));
      return sum;
    });
  }
  /// Even and odd inputs are summed apart over the row, each by multiply-adds that round once (here: by products that
  /// are exact in float), and then added.
  template <int kTo, int kX, int kW>
  static void dot_halves() {
    static_assert(kTo != kX && kTo != kW && kX != kW);
    EmulatedTile& to = state.tiles[kTo];
    const EmulatedTile &x = state.tiles[kX], &w = state.tiles[kW];
    if (!fits(to, x, w)) return;
    for (int r = 0; r < to.rows; ++r)
      for (int c = 0; c < to.bytes / 4; ++c) {
        float sums[2] = {}, before;
        for (int i = 0; i < x.bytes / 4; ++i)
          for (int odd = 0; odd < 2; ++odd)
            sums[odd] += half(x.data[r] + 4 * i + 2 * odd) * half(w.data[i] + 4 * c + 2 * odd);
        std::memcpy(&before, to.data[r] + 4 * c, 4);
        before += sums[0] + sums[1];
        std::memcpy(to.data[r] + 4 * c, &before, 4);
      }
  }

 private:
  static bool fits(const EmulatedTile& to, const EmulatedTile& x, const EmulatedTile& w) {
    ++dots;
    return needs(state.configured && to.rows > 0 && to.rows == x.rows && x.bytes % 4 == 0 && x.bytes / 4 == w.rows &&
                 to.bytes == w.bytes && to.bytes % 4 == 0);
  }
  static float half(const int8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return __builtin_bit_cast(float, uint32_t(bits) << 16);
  }
  template <int kTo, int kX, int kW, typename Sum, typename Four>
  static void dot(Four&& four) {
    static_assert(kTo != kX && kTo != kW && kX != kW);
    EmulatedTile& to = state.tiles[kTo];
    const EmulatedTile &x = state.tiles[kX], &w = state.tiles[kW];
    if (!fits(to, x, w)) return;
    for (int r = 0; r < to.rows; ++r)
      for (int c = 0; c < to.bytes / 4; ++c) {
        Sum sum;
        std::memcpy(&sum, to.data[r] + 4 * c, 4);
        for (int i = 0; i < x.bytes / 4; ++i) sum = four(x.data[r] + 4 * i, w.data[i] + 4 * c, sum);
        std::memcpy(to.data[r] + 4 * c, &sum, 4);
      }
  }
};
