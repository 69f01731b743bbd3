// The kernels for AMX on tiles in memory, against their float64 definition: what can be shown on a CPU without AMX. On
// one that has it test_kernels runs them too.
#include <memory>
#include <random>

#include "emulated_tiles.h"
#include "fresh.h"
#include "gemm_bf16.h"

using namespace wam::kernels;

namespace {

std::vector<float> randn(int64_t n) {
  std::normal_distribution<float> d;
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = d(check::fresh());
  return v;
}

// Storage of exactly so many bytes, so that a sanitizer sees what is read beyond them; 64-byte aligned.
struct Bytes {
  int8_t* data;
  explicit Bytes(int64_t n) : data(static_cast<int8_t*>(::operator new(size_t(n), std::align_val_t(64)))) {
    std::memset(data, 77, size_t(n));
  }
  ~Bytes() { ::operator delete(data, std::align_val_t(64)); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
};

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Weights as AMX reads them, whatever this CPU reads.
struct Weight {
  Bytes storage;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Panels panels;
  Weight(bool bytes, const std::vector<float>& w, int64_t n, int64_t k)
      : storage(bytes ? round_up(n, kPanel) * round_up(k, 4) : 2 * round_up(n, kPanel) * round_up(k, 2)) {
    if (!bytes) {
      panels.bf16 = reinterpret_cast<uint16_t*>(storage.data);
      panels.rounds = true, panels.group = 2;
      CHECK(pack_halves(
          {.w = w.data(), .n = n, .k = k, .group = 2, .packed = reinterpret_cast<uint16_t*>(storage.data)}));
      return;
    }
    scale.resize(size_t(round_up(n, kPanel))), sum.resize(scale.size());
    std::memset(storage.data, 0, size_t(round_up(n, kPanel) * round_up(k, 4)));
    for (int64_t j = 0; j < n; ++j) {
      float top = 0;
      for (int64_t i = 0; i < k; ++i) top = std::max(top, std::abs(w[size_t(j * k + i)]));
      scale[size_t(j)] = top / 127;
      for (int64_t i = 0; i < k; ++i)
        storage.data[((j / kPanel * round_up(k, 4) / 4 + i / 4) * kPanel + j % kPanel) * 4 + i % 4] =
            int8_t(std::lrint(w[size_t(j * k + i)] / scale[size_t(j)]));
    }
    panels.int8 = storage.data, panels.group = 4, panels.scale = scale.data(), panels.sum = sum.data();
  }
};

// Rows as AMX reads them: signed bytes, or bfloat16.
struct Rows {
  RoundedRows view;
  Bytes storage;
  Rows(const Panels& w, const std::vector<float>& x, int64_t m, int64_t k)
      : view{nullptr, m, rounded_stride(k, w.int8 ? 1 : 2)}, storage(m * view.stride) {
    view.data = storage.data;
    for (int64_t r = 0; r < m; ++r) {
      int8_t* row = storage.data + r * view.stride;
      std::memset(row, 0, size_t(view.stride));
      float top = 0;
      for (int64_t i = 0; i < k; ++i) top = std::max(top, std::abs(x[size_t(r * k + i)]));
      const float scale = top / 127, inverse = 127 / top;
      std::memcpy(row + view.stride - kLine, &scale, sizeof scale);
      for (int64_t i = 0; i < k; ++i) {
        const float value = x[size_t(r * k + i)];
        const auto half = uint16_t(nearest_bf16(value) >> 16);
        if (w.int8)
          row[i] = int8_t(std::lrint(value * inverse));
        else
          std::memcpy(row + 2 * i, &half, 2);
      }
    }
  }
};

void agrees(bool bytes, int64_t m, int64_t n, int64_t k) {
  const auto x = randn(m * k), w = randn(n * k), bias = randn(n), residual = randn(m * n);
  const Weight weight(bytes, w, n, k);
  const Rows rows(weight.panels, x, m, k);
  std::vector<float> y = residual, want = residual;
  GemmParams p{.x = x.data(), .w = weight.panels, .bias = bias.data(), .m = m, .n = n, .k = k, .ldx = k};
  p.y = y.data(), p.ldy = n, p.residual = y.data(), p.ldr = n;  // in place: a row that is written twice shows
  p.activation = Activation::gelu_tanh;
  const int64_t panels = round_up(n, kPanel) / kPanel, middle = check::integer(0, int(panels));
  EmulatedTiles::wrongs = EmulatedTiles::dots = 0;
  amx_panels<EmulatedTiles>(p, rows.view, 0, middle);
  amx_panels<EmulatedTiles>(p, rows.view, middle, panels);
  CHECK(EmulatedTiles::wrongs == 0);
  CHECK(EmulatedTiles::dots > 0);
  CHECK(!EmulatedTiles::state.configured);  // threads give their tiles back
  p.y = want.data(), p.residual = want.data();
  gemm_ref(p);
  const double error = check::relative_error(y, want, y.size(), std::sqrt(double(k)));
  CHECK(error < 4e-6);
  if (!(error < 4e-6)) std::printf("  %s %ld x %ld x %ld: %g\n", bytes ? "bytes" : "halves", m, n, k, error);
}

}  // namespace

TEST(products_at_ragged_sizes) {
  for (int round = 0; round < 24; ++round)
    for (const bool bytes : {true, false})
      agrees(bytes, check::integer(1, round % 2 ? 40 : int(kAmxRows)), check::integer(1, 130), check::integer(1, 300));
}

// More tiles of depth than are multiplied at once: sums wait in memory.
TEST(products_of_great_depth) {
  for (const bool bytes : {true, false})
    for (const int64_t m : {1, 17, 33, 128}) {
      const int one = int(kDepthTiles * kLine) / (bytes ? 1 : 2);
      agrees(bytes, m, 33, check::integer(one + 1, one + 100));
    }
  agrees(true, 40, 70, int(2 * kDepthTiles * kLine) + 5);
}

TEST(sizes_that_fill_tiles) {
  for (const bool bytes : {true, false})
    for (const int64_t m : {16, 32, 64})
      for (const int64_t k : {32, 64, 128, 512}) agrees(bytes, m, 64, k);
}

TEST(tiles_are_configured_once) {
  EmulatedTiles::configurations = 0;
  agrees(true, 100, 128, 128);
  CHECK(EmulatedTiles::configurations == 2);  // two calls
}

// What the tiles in memory are there to notice.
TEST(wrong_uses_of_tiles_are_noticed) {
  const auto notices = [](auto&& use) {
    const int before = EmulatedTiles::wrongs;
    use();
    return EmulatedTiles::wrongs == before + 1;
  };
  alignas(64) int8_t memory[16 * 64] = {};
  EmulatedTiles::release();
  CHECK(notices([&] { EmulatedTiles::load<0>(memory, 64); }));
  CHECK(notices([] { EmulatedTiles::dot_bytes<0, 4, 6>(); }));
  for (const int rows : {17, 33}) {
    TileConfig config = tile_config(16);
    config.rows[0] = uint8_t(rows);
    CHECK(notices([&] { EmulatedTiles::configure(config); }));
  }
  TileConfig wide = tile_config(16), palette = tile_config(16), ninth = tile_config(16);
  wide.bytes[0] = 68, palette.palette = 2, ninth.rows[8] = ninth.bytes[8] = 1;
  for (const TileConfig& config : {wide, palette, ninth}) CHECK(notices([&] { EmulatedTiles::configure(config); }));
  TileConfig uneven = tile_config(20);
  uneven.rows[kUpperX] = 9;
  EmulatedTiles::configure(uneven);
  CHECK(notices([] { EmulatedTiles::dot_halves<kUpperLeft, kUpperX, kLeftW>(); }));
  EmulatedTiles::configure(tile_config(16));  // no lower tiles
  CHECK(notices([] { EmulatedTiles::zero<kLowerLeft>(); }));
  CHECK(notices([&] { EmulatedTiles::load<kLowerX>(memory, 64); }));
  CHECK(notices([] { EmulatedTiles::dot_bytes<kLowerLeft, kLowerX, kLeftW>(); }));
  EmulatedTiles::release();
  for (int64_t rows = 1; rows <= kBlockRows; ++rows) {
    const int before = EmulatedTiles::wrongs;
    EmulatedTiles::configure(tile_config(rows));
    CHECK(EmulatedTiles::wrongs == before);
  }
  EmulatedTiles::release();
}

CHECK_MAIN()
