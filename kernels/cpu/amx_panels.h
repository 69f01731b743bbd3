#pragma once

// Products on tiles, as AMX has them: eight registers of up to 16 rows of 64 bytes. The same source computes with the
// CPU's tiles (amx.cpp) and, in a test, with tiles in memory that check every rule of them, since few machines have
// AMX.
#include <algorithm>
#include <cstring>

#include "gemm_rounded.h"

namespace wam::kernels {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kStepBytes = 4 * kPanel;                     // of weights: four bytes or two bfloat16 a column
inline constexpr int64_t kTileBytes = kTileRows * kStepBytes;         // of weights, two tiles side by side
inline constexpr int64_t kDepthTiles = 16;                            // 32 KiB of weights stay in the first cache
inline constexpr int64_t kAmxRows = 128, kBlockRows = 2 * kTileRows;  // rows that share them; rows of a block
inline constexpr int64_t kAccBytes = kBlockRows * kPanel * 4;

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row of each tile
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles of a block: sums of its upper and its lower rows, two tiles of 16 columns each; x; weights.
enum Tile : int { kUpperLeft, kUpperRight, kLowerLeft, kLowerRight, kUpperX, kLowerX, kLeftW, kRightW };
inline int64_t upper_rows(int64_t rows) { return rows > kTileRows ? (rows + 1) / 2 : rows; }
inline TileConfig tile_config(int64_t rows) {
  TileConfig out;
  const auto set = [&](int tile, int64_t count) {
    out.rows[tile] = static_cast<uint8_t>(count);
    out.bytes[tile] = count ? kLine : 0;
  };
  const int64_t upper = upper_rows(rows);
  for (const int tile : {kUpperLeft, kUpperRight, kUpperX}) set(tile, upper);
  for (const int tile : {kLowerLeft, kLowerRight, kLowerX}) set(tile, rows - upper);
  for (const int tile : {kLeftW, kRightW}) set(tile, kTileRows);
  return out;
}

// Columns [begin, end) of panels of p for at most kAmxRows rows. Four tiles are loaded for four products, each of 16
// cycles and more against 8 of a load. Rows of a block become outputs while the next block is multiplied: the
// multiplier is busy for many cycles of which the rest of the core needs few.
template <class Tiles, bool kBytes>
class AmxPanels {
 public:
  AmxPanels(const GemmParams& p, const RoundedRows& x)
      : p_(p), x_(x), blocks_((x.rows + kBlockRows - 1) / kBlockRows), height_((x.rows + blocks_ - 1) / blocks_) {
    Tiles::configure(tile_config(height_));
  }
  ~AmxPanels() { Tiles::release(); }
  AmxPanels(const AmxPanels&) = delete;
  AmxPanels& operator=(const AmxPanels&) = delete;

  void run(int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      weights_ = panel_of(p_, panel);
      ahead_ = weights_ + (panel + 1 < end ? steps_ * kStepBytes : 0);
      if (steps_ % kTileRows) {  // the last tile, filled up with zeros
        const int64_t whole = steps_ / kTileRows * kTileRows;
        std::memset(tail_, 0, sizeof tail_);
        std::memcpy(tail_, weights_ + whole * kStepBytes, static_cast<size_t>((steps_ - whole) * kStepBytes));
      }
      for (int64_t first = 0; first < tiles_; first += kDepthTiles)
        for (int64_t b = 0; b < blocks_; ++b) block(panel, b, first, std::min(tiles_, first + kDepthTiles));
    }
    close(pending_.rows);
  }

 private:
  // All blocks have the same rows, so that tiles are configured once: the last one begins within the one before it, and
  // of the rows that both compute it writes none.
  void block(int64_t panel, int64_t b, int64_t first, int64_t end) {
    const int64_t row = std::min(b * height_, x_.rows - height_),
                  whose = tiles_ > kDepthTiles ? panel % 2 * blocks_ + b : turn_;
    int8_t* acc = reinterpret_cast<int8_t*>(acc_) + whose * kAccBytes;
    const int64_t each = (pending_.rows + end - first - 1) / (end - first);
    if (height_ > kTileRows)
      multiply<true>(x_.row(row), acc, first, end, each);
    else
      multiply<false>(x_.row(row), acc, first, end, each);
    close(pending_.rows);
    if (end < tiles_) return;
    const int64_t known = b * height_ - row;
    pending_ = {.row = row + known, .rows = height_ - known, .panel = panel, .acc = acc + known * kStepBytes};
    turn_ = 1 - turn_;
  }

  template <bool kLower>
  void multiply(const int8_t* x, int8_t* acc, int64_t first, int64_t end, int64_t each) {
    const int64_t upper = upper_rows(height_);
    const int8_t* lower_x = x + upper * x_.stride;
    int8_t* lower = acc + upper * kStepBytes;
    if (first == 0) {
      Tiles::template zero<kUpperLeft>(), Tiles::template zero<kUpperRight>();
      if constexpr (kLower) Tiles::template zero<kLowerLeft>(), Tiles::template zero<kLowerRight>();
    } else {
      Tiles::template load<kUpperLeft>(acc, kStepBytes), Tiles::template load<kUpperRight>(acc + kLine, kStepBytes);
      if constexpr (kLower)
        Tiles::template load<kLowerLeft>(lower, kStepBytes),
            Tiles::template load<kLowerRight>(lower + kLine, kStepBytes);
    }
    for (int64_t t = first; t < end; ++t) {
      const int8_t* w = t == steps_ / kTileRows ? tail_ : weights_ + t * kTileBytes;
      Tiles::template load<kUpperX>(x + t * kLine, x_.stride);
      Tiles::template load<kLeftW>(w, kStepBytes);
      if constexpr (kLower) Tiles::template load<kLowerX>(lower_x + t * kLine, x_.stride);
      Tiles::template load<kRightW>(w + kLine, kStepBytes);
      dot<kUpperLeft, kUpperX, kLeftW>();
      if constexpr (kLower) dot<kLowerLeft, kLowerX, kLeftW>();
      dot<kUpperRight, kUpperX, kRightW>();
      if constexpr (kLower) dot<kLowerRight, kLowerX, kRightW>();
      for (int64_t line = 0; line < kTileBytes / blocks_ && ahead_ != weights_; line += kLine, ahead_ += kLine)
        __builtin_prefetch(ahead_, 0, 2);
      close(each);
    }
    Tiles::template store<kUpperLeft>(acc, kStepBytes), Tiles::template store<kUpperRight>(acc + kLine, kStepBytes);
    if constexpr (kLower)
      Tiles::template store<kLowerLeft>(lower, kStepBytes),
          Tiles::template store<kLowerRight>(lower + kLine, kStepBytes);
  }

  template <int kTo, int kX, int kW>
  void dot() {
    if constexpr (kBytes)
      Tiles::template dot_bytes<kTo, kX, kW>();
    else
      Tiles::template dot_halves<kTo, kX, kW>();
  }

  // The next `rows` of the block before this one.
  void close(int64_t rows) {
    rows = std::min(rows, pending_.rows);
    if (rows == 0) return;
    close_rows(p_, x_, {.row = pending_.row, .rows = rows, .panel = pending_.panel, .acc = pending_.acc});
    pending_.row += rows, pending_.rows -= rows, pending_.acc += rows * kStepBytes;
  }

  struct Pending {
    int64_t row = 0, rows = 0, panel = 0;
    int8_t* acc = nullptr;
  };

  const GemmParams& p_;
  const RoundedRows& x_;
  const int64_t blocks_, height_;
  const int64_t steps_ = group_steps(p_.w, p_.k), tiles_ = (steps_ + kTileRows - 1) / kTileRows;
  const int8_t *weights_ = nullptr, *ahead_ = nullptr;  // of this panel; of the next, as far as it is asked for
  Pending pending_;
  int64_t turn_ = 0;
  alignas(64) int8_t tail_[kTileBytes];
  alignas(
      64) unsigned char acc_[2 * kAmxRows / kBlockRows * kAccBytes];  // two a block, for sums that wait to be closed
};

template <class Tiles>
void amx_panels(const GemmParams& p, const RoundedRows& x, int64_t begin, int64_t end) {
  if (p.w.int8)
    AmxPanels<Tiles, true>(p, x).run(begin, end);
  else
    AmxPanels<Tiles, false>(p, x).run(begin, end);
}

}  // namespace wam::kernels
