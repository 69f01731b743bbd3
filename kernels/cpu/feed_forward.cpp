#include "wamcore/kernels/feed_forward.h"

namespace wam::kernels {

void feed_forward(const FeedForwardParams& p, const Team& team) {
  const Team self;  // the inner kernels run on this thread alone
  const auto [begin, end] = team.share(p.rows);
  const int64_t ldz = feed_forward_stride(p.dim), ldh = feed_forward_stride(p.hidden);
  float* z = p.scratch + team.rank * feed_forward_scratch(p.dim, p.hidden, /*threads=*/1);
  float* hidden = z + kFeedForwardRows * ldz;
  const int64_t pieces = (end - begin + kFeedForwardRows - 1) / kFeedForwardRows;
  for (int64_t i = 0; i < pieces; ++i) {
    const int64_t row = begin + (end - begin) * i / pieces, rows = begin + (end - begin) * (i + 1) / pieces - row;
    float* x = p.x + row * p.ldx;
    const int32_t* time_row = p.time_row + row;
    layer_norm({.x = x,
                .y = z,
                .rows = rows,
                .cols = p.dim,
                .ldx = p.ldx,
                .ldy = ldz,
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
          .ldx = ldz,
          .ldy = ldh,
          .activation = Activation::gelu_tanh},
         self);
    gemm({.x = hidden,
          .w = p.w2,
          .bias = p.b2,
          .y = x,
          .m = rows,
          .n = p.dim,
          .k = p.hidden,
          .ldx = ldh,
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
