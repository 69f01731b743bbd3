#include "wamcore/kernels/feed_forward.h"

namespace wam::kernels {

void feed_forward(const FeedForwardParams& p, const Team& team) {
  const Team self;  // the inner kernels run on this thread alone
  const auto [begin, end] = team.share(p.rows);
  float* z = p.scratch + team.rank * kFeedForwardRows * (p.dim + p.hidden);
  float* hidden = z + kFeedForwardRows * p.dim;
  for (int64_t row = begin; row < end; row += kFeedForwardRows) {
    const int64_t rows = std::min(kFeedForwardRows, end - row);
    float* x = p.x + row * p.ldx;
    const int32_t* time_row = p.time_row + row;
    layer_norm({.x = x,
                .y = z,
                .rows = rows,
                .cols = p.dim,
                .ldx = p.ldx,
                .ldy = p.dim,
                .eps = p.eps,
                .shift = p.shift,
                .scale = p.scale,
                .ldm = p.ldm,
                .time_row = time_row},
               self);
    gemm({.x = z,
          .w = p.w1,
          .bias = p.b1,
          .y = hidden,
          .m = rows,
          .n = p.hidden,
          .k = p.dim,
          .ldx = p.dim,
          .ldy = p.hidden,
          .activation = Activation::gelu_tanh},
         self);
    gemm({.x = hidden,
          .w = p.w2,
          .bias = p.b2,
          .y = x,
          .m = rows,
          .n = p.dim,
          .k = p.hidden,
          .ldx = p.hidden,
          .ldy = p.ldx,
          .residual = x,
          .ldr = p.ldx,
          .gate = p.gate,
          .ldg = p.ldm,
          .gate_row = time_row},
         self);
  }
}

}  // namespace wam::kernels
