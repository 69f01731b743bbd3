// The machine itself: what it must compute, and the mistakes that it must not let pass.
#include <algorithm>
#include <numeric>
#include <set>

#include "check.h"
#include "cuda/arch_sm80.cuh"
#include "planted.h"

using namespace wam::kernels::cuda;

namespace {

// Sums 256 values a block by way of shared memory and shuffles.
__global__ void block_sum(const float* x, float* sums) {
  WAM_SHARED(float[8], partial);
  const float sum = sum_over_lanes(x[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  if (!WAM_PLANTED("no_barrier")) __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (float p : partial) total += p;
    sums[blockIdx.x] = total;
  }
}

simt::Counts sum_of(std::vector<float>* sums, unsigned seed, const char* bug = "") {
  std::vector<float> x(4 * 256);
  std::iota(x.begin(), x.end(), 0.0f);
  sums->assign(4, -1.0f);
  return simt::launch({.grid = {4}, .block = {256}, .seed = seed, .planted = bug},
                      [&] { block_sum(x.data(), sums->data()); });
}

// Rows of 16 bytes through shared memory, reversed in order by another thread than the one that fetched them.
__global__ void reverse_rows(const uint4* in, uint4* out) {
  WAM_DYNAMIC_SHARED(shared);
  uint4* rows = reinterpret_cast<uint4*>(shared);
  copy_async(&rows[threadIdx.x], &in[threadIdx.x], threadIdx.x != 5);
  copy_async_commit();
  if (!WAM_PLANTED("no_wait")) copy_async_wait<0>();
  if (!WAM_PLANTED("no_barrier")) __syncthreads();
  out[threadIdx.x] = rows[63 - threadIdx.x];
  copy_async_wait<0>();
}

int wrong_rows(unsigned seed, const char* bug) {
  std::vector<uint4> in(64), out(64);
  for (unsigned i = 0; i < 64; ++i) in[i] = {i, i + 1, i + 2, i + 3};
  simt::launch({.block = {64}, .shared_bytes = 64 * 16, .seed = seed, .planted = bug},
               [&] { reverse_rows(in.data(), out.data()); });
  int wrong = 0;
  for (unsigned i = 0; i < 64; ++i) wrong += out[63 - i].y != (i == 5 ? 0 : i + 1);
  return wrong;
}

}  // namespace

TEST(sums_a_block_in_any_order) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<float> sums;
    const simt::Counts c = sum_of(&sums, seed);
    for (int b = 0; b < 4; ++b) CHECK(sums[size_t(b)] == 256.0f * (256 * b) + 255 * 128);
    CHECK(c.barriers == 4 && c.collectives == 4 * 8 * 5);
  }
}

TEST(catches_a_missing_barrier) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<float> sums;
    CHECK(sum_of(&sums, seed, "no_barrier").planted_hits > 0);
    CHECK(std::any_of(sums.begin(), sums.end(), [](float s) { return s != s; }));  // poison was read
  }
}

TEST(copies_land_by_the_wait) {
  for (unsigned seed = 0; seed < 20; ++seed) CHECK(wrong_rows(seed, "") == 0);
}

TEST(catches_a_missing_wait) {
  for (unsigned seed = 0; seed < 20; ++seed) CHECK(wrong_rows(seed, "no_wait") > 0);
}

TEST(catches_a_wait_without_barrier) {
  for (unsigned seed = 0; seed < 20; ++seed) CHECK(wrong_rows(seed, "no_barrier") > 0);
}

TEST(catches_copies_left_in_flight) {
  uint4 in{};
  CHECK_THROWS(simt::launch({.block = {32}, .shared_bytes = 16},
                            [&] {
                              WAM_DYNAMIC_SHARED(shared);
                              if (threadIdx.x == 0) copy_async(shared, &in, true);
                            }),
               simt::Fault, "never waited for");
}

TEST(catches_deadlock) {
  const auto half_a_barrier = [] {
    if (threadIdx.x < 32) simt::Machine::now().sync(1, 64, nullptr);
  };
  CHECK_THROWS(simt::launch({.block = {64}}, half_a_barrier), simt::Fault,
               "deadlock in block (0,0,0): 32 thread(s) from (0,0,0) on wait for a barrier");
}

TEST(catches_divergent_barriers) {
  const auto two_places = [] {
    if (threadIdx.x < 32)
      __syncthreads();
    else
      __syncthreads();
  };
  CHECK_THROWS(simt::launch({.block = {64}}, two_places), simt::Fault, "divergent barrier");
  const auto some_end = [] {
    if (threadIdx.x >= 32) __syncthreads();
  };
  CHECK_THROWS(simt::launch({.block = {64}}, some_end), simt::Fault, "ended");
}

TEST(catches_divergent_warps) {
  const auto two_operations = [] {
    if (threadIdx.x < 16)
      __syncwarp();
    else
      __shfl_xor_sync(0xffffffffu, 1, 1);
  };
  CHECK_THROWS(simt::launch({.block = {32}}, two_operations), simt::Fault, "divergent warp");
  const auto lane_gone = [] {
    if (threadIdx.x != 3) __syncwarp();
  };
  CHECK_THROWS(simt::launch({.block = {32}}, lane_gone), simt::Fault, "lane 3");
  const auto not_in_mask = [] { __syncwarp(0xfu); };
  CHECK_THROWS(simt::launch({.block = {32}}, not_in_mask), simt::Fault, "not in its mask");
}

TEST(catches_shared_memory_overrun) {
  const ChildResult child = run_in_child([] {
    simt::launch({.block = {32}, .shared_bytes = 32 * 4}, [] {
      WAM_DYNAMIC_SHARED(shared);
      reinterpret_cast<float*>(shared)[threadIdx.x + 1] = 1.0f;
    });
  });
  CHECK(!child.clean && child.says("AddressSanitizer"));
}

TEST(order_depends_on_the_seed_alone) {
  std::set<std::vector<unsigned>> orders;
  for (unsigned seed = 0; seed < 8; ++seed) {
    std::vector<unsigned> order[2];
    for (auto& o : order)
      simt::launch({.grid = {2}, .block = {64}, .seed = seed}, [&] { o.push_back(blockIdx.x * 64 + threadIdx.x); });
    CHECK(order[0] == order[1]);
    orders.insert(order[0]);
  }
  CHECK(orders.size() == 8);
}

TEST(indices_cover_grid_and_block) {
  std::set<std::array<unsigned, 6>> seen;
  simt::launch({.grid = {2, 3, 2}, .block = {4, 2, 3}}, [&] {
    CHECK(gridDim.y == 3 && blockDim.z == 3);
    seen.insert({blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z});
  });
  CHECK(seen.size() == 2 * 3 * 2 * 4 * 2 * 3);
}

TEST(shuffles_and_votes) {
  int down[32], up[32], at[32], within[32];
  unsigned votes[32];
  simt::launch({.block = {32}}, [&] {
    const int me = int(threadIdx.x);
    down[me] = __shfl_down_sync(0xffffffffu, me, 3);
    up[me] = __shfl_up_sync(0xffffffffu, me, 3);
    at[me] = __shfl_sync(0xffffffffu, me * me, 7);
    within[me] = __shfl_down_sync(0xffffffffu, me, 1, 8);
    votes[me] = __ballot_sync(0xffffffffu, me % 3 == 0);
  });
  for (int i = 0; i < 32; ++i) {
    CHECK(down[i] == (i < 29 ? i + 3 : i) && up[i] == (i >= 3 ? i - 3 : i) && at[i] == 49);
    CHECK(within[i] == (i % 8 == 7 ? i : i + 1) && votes[i] == 0x49249249u);
  }
}

// One warp multiplies [16, 16] by [16, 8] (given as its transpose) with operands fetched the way kernels do it.
TEST(mma_of_matrices_from_shared_memory) {
  std::mt19937 random(3);
  std::vector<bf16> a(16 * 16), b(16 * 16);  // b as [k, n], of which ldmatrix.trans makes two operands of 8 columns
  for (bf16& x : a) x = to_bf16(float(int(random() % 17)) - 8);
  for (bf16& x : b) x = to_bf16(float(int(random() % 17)) - 8);
  float out[16][16];
  const simt::Counts c = simt::launch({.block = {32}, .shared_bytes = 1024}, [&] {
    WAM_DYNAMIC_SHARED(shared);
    bf16* tile = reinterpret_cast<bf16*>(shared);
    const int lane = int(threadIdx.x);
    for (int i = lane; i < 256; i += 32) {
      tile[i] = a[size_t(i)];
      tile[256 + i] = b[size_t(i)];
    }
    __syncwarp();
    uint32_t fa[4], fb[4];
    load_matrices(fa, tile + lane % 16 * 16 + lane / 16 * 8);
    load_matrices_transposed(fb, tile + 256 + lane % 16 * 16 + lane / 16 * 8);
    for (int n = 0; n < 2; ++n) {
      float d[4] = {};
      mma_bf16(d, fa, {fb[2 * n], fb[2 * n + 1]});
      for (int i = 0; i < 4; ++i) out[lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
  });
  for (size_t m = 0; m < 16; ++m)
    for (size_t n = 0; n < 16; ++n) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += to_float(a[m * 16 + k]) * to_float(b[k * 16 + n]);
      CHECK(out[m][n] == sum);
    }
  CHECK(c.mma == 2 && c.ldmatrix == 2 && c.bank_conflicts == 2 * 4);  // rows of 32 bytes: two to a bank
}

TEST(finds_races_in_any_order) {
  // Each warp fetches a row of 16 bytes a lane and then reads the next warp's rows.
  const auto exchange = [](const uint4* in) {
    WAM_DYNAMIC_SHARED(shared);
    copy_async(shared + threadIdx.x * 16, in + threadIdx.x, true);
    copy_async_commit();
    if (!WAM_PLANTED("no_wait")) copy_async_wait<0>();
    if (!WAM_PLANTED("no_barrier")) __syncthreads();
    uint32_t d[4];
    load_matrices(d, shared + (threadIdx.x ^ 32) * 16);
    if (!WAM_PLANTED("no_second_barrier")) __syncthreads();
    copy_async(shared + threadIdx.x * 16, in + threadIdx.x, true);
    copy_async_commit();
    copy_async_wait<0>();
  };
  const std::vector<uint4> in(64);
  for (unsigned seed = 1; seed < 10; ++seed) {
    const auto run = [&](const char* bug) {
      simt::launch({.block = {64}, .shared_bytes = 64 * 16, .seed = seed, .planted = bug},
                   [&] { exchange(in.data()); });
    };
    run("");
    CHECK_THROWS(run("no_wait"), simt::Fault, "reads what a copy in flight writes");
    CHECK_THROWS(run("no_barrier"), simt::Fault, "race: ");
    CHECK_THROWS(run("no_second_barrier"), simt::Fault, "race: ");
  }
}

TEST(swizzled_tiles_have_no_bank_conflicts) {
  const auto read_all = [] {
    WAM_DYNAMIC_SHARED(shared);
    uint32_t d[4];
    for (int chunk = 0; chunk < 16; chunk += 2)
      load_matrices(d, shared + 16 * swizzled<16>(int(threadIdx.x) % 16, chunk + int(threadIdx.x) / 16));
  };
  const simt::Counts c = simt::launch({.block = {32}, .shared_bytes = 16 * 256}, read_all);
  CHECK(c.ldmatrix == 8 && c.bank_conflicts == 0);
}

TEST(bf16_rounds_to_nearest_even) {
  CHECK(to_bf16(1.0f).bits == 0x3f80 && to_float({0x4049}) == 3.140625f);
  CHECK(to_bf16(__uint_as_float(0x3f808000)).bits == 0x3f80);  // a tie, down to even
  CHECK(to_bf16(__uint_as_float(0x3f818000)).bits == 0x3f82);  // a tie, up to even
  CHECK(to_bf16(__uint_as_float(0x7f7fffff)).bits == 0x7f80);  // overflow to infinity
  CHECK(std::isnan(to_float(to_bf16(NAN))));
  CHECK(pack_bf16(1.0f, -2.0f) == 0xc0003f80u);
}

CHECK_MAIN()
