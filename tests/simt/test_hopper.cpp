// The machine's sm_90a instructions: what they must compute, and the mistakes that they must not let pass.
#include "check.h"
#include "cuda/arch_sm90.cuh"
#include "tensor_maps.h"

using namespace wam::kernels::cuda;

namespace {

// A tensor [3 planes, 20 rows, 72 columns] with a gap after each row, and its map with a box of 64 columns, 16 rows.
struct Source {
  Source() : data(3 * 20 * 80, bf16{0x7fc0}) {
    for (int z = 0; z < 3; ++z)
      for (int y = 0; y < 20; ++y)
        for (int x = 0; x < 72; ++x) at(z, y, x) = to_bf16(float(z * 100 + y) + float(x) / 128);
    CHECK(make_tensor_map(&map, {.base = data.data(),
                                 .rank = 4,
                                 .sizes = {72, 20, 3, 1},
                                 .strides = {160, 20 * 160, 3 * 20 * 160},
                                 .box = {64, 16, 1, 1}}) == 0);
  }
  bf16& at(int z, int y, int x) { return data[size_t((z * 20 + y) * 80 + x)]; }
  std::vector<bf16> data;
  TensorMap map;
};

constexpr int kBoxBytes = 16 * 128;

template <typename Kernel>
void run(unsigned threads, unsigned shared, Kernel kernel, unsigned seed = 1) {
  simt::launch({.block = {threads}, .shared_bytes = shared, .seed = seed}, kernel);
}

}  // namespace

TEST(a_box_arrives_swizzled_with_zeros_outside) {
  Source source;
  for (unsigned seed = 0; seed < 5; ++seed) {
    std::vector<bf16> seen(16 * 64);
    run(
        32, kBoxBytes + 8,
        [&] {
          WAM_DYNAMIC_SHARED(shared);
          auto* barrier = reinterpret_cast<uint64_t*>(shared + kBoxBytes);
          if (threadIdx.x == 0) barrier_init(barrier, 1);
          __syncthreads();
          if (threadIdx.x == 0) {
            barrier_arrive_expect(barrier, kBoxBytes);
            copy_box(source.map, barrier, shared, {40, 10, 2, 0});
          }
          barrier_wait(barrier, 0);
          for (unsigned i = threadIdx.x; i < 16 * 64; i += 32) {
            const unsigned row = i / 64, chunk = i % 64 / 8;
            seen[i] = reinterpret_cast<bf16*>(shared)[row * 64 + (chunk ^ row % 8) * 8 + i % 8];
          }
        },
        seed);
    for (int row = 0; row < 16; ++row)
      for (int x = 0; x < 64; ++x) {
        const bool inside = row + 10 < 20 && x + 40 < 72;
        CHECK(seen[size_t(row * 64 + x)].bits == (inside ? source.at(2, row + 10, x + 40).bits : 0));
      }
  }
}

TEST(catches_misused_barriers) {
  const auto with_barrier = [](unsigned arrivals, auto body) {
    run(32, 8, [&] {
      WAM_DYNAMIC_SHARED(shared);
      auto* barrier = reinterpret_cast<uint64_t*>(shared);
      if (threadIdx.x == 0 && arrivals) barrier_init(barrier, arrivals);
      __syncthreads();
      body(barrier);
    });
  };
  CHECK_THROWS(with_barrier(0, [](uint64_t* b) { barrier_wait(b, 0); }), simt::Fault, "before its initialisation");
  CHECK_THROWS(with_barrier(1, [](uint64_t* b) { barrier_wait(b, 0); }), simt::Fault, "deadlock");
  with_barrier(1, [](uint64_t* b) { barrier_wait(b, 1); });  // the phase before the first is over
  with_barrier(32, [](uint64_t* b) {
    barrier_arrive(b);
    barrier_wait(b, 0);
  });
  const auto arrives_with_bytes_missing = [](uint64_t* b) {
    if (threadIdx.x != 0) return;
    barrier_arrive_expect(b, 16);
    barrier_arrive(b);
  };
  CHECK_THROWS(with_barrier(1, arrives_with_bytes_missing), simt::Fault, "more arrivals");
}

TEST(catches_misused_copies) {
  Source source;
  const auto copies = [&](auto body) {
    run(64, 2 * kBoxBytes + 8, [&] {
      WAM_DYNAMIC_SHARED(shared);
      auto* barrier = reinterpret_cast<uint64_t*>(shared + 2 * kBoxBytes);
      if (threadIdx.x == 0) barrier_init(barrier, 1);
      __syncthreads();
      body(shared, barrier);
    });
  };
  const auto at = [](int row) { return std::array<int, 4>{0, row, 0, 0}; };
  const auto start = [&](unsigned char* to, uint64_t* barrier, int row) {
    const auto a = at(row);
    copy_box(source.map, barrier, to, {a[0], a[1], a[2], a[3]});
  };
  CHECK_THROWS(copies([&](unsigned char* s, uint64_t* b) {
                 if (threadIdx.x == 0) start(s + 512, b, 0);
               }),
               simt::Fault, "no multiple of 1024");
  CHECK_THROWS(copies([&](unsigned char* s, uint64_t* b) {
                 if (threadIdx.x == 0) start(s + kBoxBytes + 1024, b, 0);
               }),
               simt::Fault, "outside of shared memory");
  CHECK_THROWS(copies([&](unsigned char* s, uint64_t* b) {
                 if (threadIdx.x == 0) barrier_arrive_expect(b, kBoxBytes / 2), start(s, b, 0);
                 barrier_wait(b, 0);
               }),
               simt::Fault, "more bytes than were announced");
  // Reading what a copy brings, without waiting for it.
  CHECK_THROWS(copies([&](unsigned char* s, uint64_t* b) {
                 if (threadIdx.x == 0) barrier_arrive_expect(b, kBoxBytes), start(s, b, 0);
                 __syncthreads();
                 uint32_t d[4];
                 load_matrices(d, s + threadIdx.x * 16);
                 barrier_wait(b, 0);
               }),
               simt::Fault, "race: ");
}

TEST(catches_copies_that_outlive_the_block) {
  Source source;
  int caught = 0;
  for (unsigned seed = 0; seed < 20; ++seed) try {
      run(
          32, kBoxBytes + 8,
          [&] {
            WAM_DYNAMIC_SHARED(shared);
            auto* barrier = reinterpret_cast<uint64_t*>(shared + kBoxBytes);
            if (threadIdx.x != 0) return;
            barrier_init(barrier, 1);
            barrier_arrive_expect(barrier, kBoxBytes);
            copy_box(source.map, barrier, shared, {0, 0, 0, 0});
          },
          seed);
    } catch (const simt::Fault& fault) {
      caught += std::string(fault.what()).find("in flight") != std::string::npos;
    }
  CHECK(caught > 0);  // whether it does is a matter of time
}

// One warpgroup: [64, 16] x [16, 64], with the second operand stored both ways round, and the first in registers too.
TEST(wgmma_multiplies_what_the_descriptors_name) {
  std::mt19937 random(4);
  std::vector<bf16> a(64 * 64), b(64 * 64);  // [m, k] and [n, k]; the product of columns 16 to 31 of both
  for (bf16& x : a) x = to_bf16(float(int(random() % 17)) - 8);
  for (bf16& x : b) x = to_bf16(float(int(random() % 17)) - 8);
  std::vector<bf16> b_turned(64 * 64);
  for (size_t n = 0; n < 64; ++n)
    for (size_t k = 0; k < 64; ++k) b_turned[k * 64 + n] = b[n * 64 + k];
  TensorMap maps[3];
  const bf16* sources[3] = {a.data(), b.data(), b_turned.data()};
  for (int i = 0; i < 3; ++i)
    CHECK(make_tensor_map(&maps[i], {.base = sources[i], .sizes = {64, 64}, .strides = {128}, .box = {64, 64}}) == 0);
  std::vector<float> from_shared(64 * 64), from_registers(64 * 64);
  run(128, 3 * 8192 + 8, [&] {
    WAM_DYNAMIC_SHARED(shared);
    auto* barrier = reinterpret_cast<uint64_t*>(shared + 3 * 8192);
    if (threadIdx.x == 0) barrier_init(barrier, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      barrier_arrive_expect(barrier, 3 * 8192);
      for (int i = 0; i < 3; ++i) copy_box(maps[i], barrier, shared + i * 8192, 0, 0);
    }
    barrier_wait(barrier, 0);
    const int lane = int(threadIdx.x) % 32, row = int(threadIdx.x) / 32 * 16 + lane / 4;
    uint32_t fragment[4];
    for (int i = 0; i < 4; ++i) {
      const bf16* pair = &a[size_t((row + i % 2 * 8) * 64 + 16 + i / 2 * 8 + lane % 4 * 2)];
      fragment[i] = pair[0].bits | uint32_t{pair[1].bits} << 16;
    }
    float d[8][4], e[8][4];
    wgmma_fence();
    simt::wgmma({&d[0][0], 64, nullptr, operand_descriptor(shared + 32, 1024),
                 operand_descriptor(shared + 8192 + 32, 1024), false, false});
    wgmma_rs<64>(e, fragment, operand_descriptor(shared + 2 * 8192 + 2 * 1024, 1024, 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < 32; ++i) {
      const size_t at = size_t((row + i % 4 / 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2);
      from_shared[at] = d[i / 4][i % 4];
      from_registers[at] = e[i / 4][i % 4];
    }
  });
  for (size_t m = 0; m < 64; ++m)
    for (size_t n = 0; n < 64; ++n) {
      float sum = 0;
      for (size_t k = 16; k < 32; ++k) sum += to_float(a[m * 64 + k]) * to_float(b[n * 64 + k]);
      CHECK(from_shared[m * 64 + n] == sum && from_registers[m * 64 + n] == sum);
    }
}

TEST(catches_misused_products) {
  const auto group = [](auto body) {
    run(128, 16384, [&] {
      WAM_DYNAMIC_SHARED(shared);
      float d[8][4] = {};
      const uint32_t a[4] = {};
      body(d, a, operand_descriptor(shared, 1024, 8192));
    });
  };
  using Sums = float(&)[8][4];
  using Fragment = const uint32_t(&)[4];
  CHECK_THROWS(group([](Sums d, Fragment a, uint64_t b) { wgmma_rs<64>(d, a, b, false); }), simt::Fault, "wgmma.fence");
  CHECK_THROWS(group([](Sums d, Fragment a, uint64_t b) {
                 wgmma_fence();
                 wgmma_rs<64>(d, a, b, false);
                 wgmma_commit();
               }),
               simt::Fault, "wgmma in flight");
  CHECK_THROWS(group([](Sums d, Fragment a, uint64_t b) {
                 wgmma_fence();
                 wgmma_rs<64>(d, a, b & ~(uint64_t{3} << 62), false);
                 wgmma_commit();
                 wgmma_wait<0>();
               }),
               simt::Fault, "128-byte swizzle");
}

CHECK_MAIN()
