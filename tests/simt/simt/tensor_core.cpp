#include "simt/tensor_core.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace simt {
namespace {

float element(uint32_t pair, int half) {
  const uint32_t bits = half ? pair & 0xffff0000u : pair << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

struct MmaOperands {
  float d[4];
  uint32_t a[4];
  uint32_t b[2];
};

// d += a b for the whole warp; the sums lie alike whatever the operands are.
template <int depth>
void add_products(Lanes& lanes, const float (&a)[16][depth], const float (&b)[depth][8]) {
  float d[16][8];
  const auto each = [&](auto with) {  // PTX ISA: rows and columns of the accumulator's four elements
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) with(lane, i, d[i < 2 ? lane >> 2 : (lane >> 2) + 8][(lane & 3) * 2 + (i & 1)]);
  };
  each([&](int lane, int i, float& x) { std::memcpy(&x, lanes.in[lane] + i * sizeof x, sizeof x); });
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k)
      for (int col = 0; col < 8; ++col) d[row][col] += a[row][k] * b[k][col];
  each([&](int lane, int i, float& x) { std::memcpy(lanes.out[lane] + i * sizeof x, &x, sizeof x); });
}

MmaOperands operands(const Lanes& lanes, int lane) {
  MmaOperands o;
  std::memcpy(&o, lanes.in[lane], sizeof o);
  return o;
}

// Row and column of the fragments' elements, by lane: PTX ISA, "Matrix fragments for mma.m16n8k16".
void multiply_bf16(Lanes& lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperands o = operands(lanes, lane);
    const int group = lane >> 2, member = lane & 3;
    for (int i = 0; i < 8; ++i) {
      const int row = i % 4 < 2 ? group : group + 8;
      const int col = member * 2 + (i & 1) + (i < 4 ? 0 : 8);
      a[row][col] = element(o.a[i / 2], i & 1);
    }
    for (int i = 0; i < 4; ++i) b[member * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = element(o.b[i / 2], i & 1);
  }
  add_products(lanes, a, b);
}

// The same of "Matrix fragments for mma.m16n8k32" with 8-bit elements.
void multiply_e4m3(Lanes& lanes) {
  float a[16][32], b[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperands o = operands(lanes, lane);
    const int group = lane >> 2, member = lane & 3;
    for (int i = 0; i < 16; ++i) {
      const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
      const int col = member * 4 + (i & 3) + (i < 8 ? 0 : 16);
      a[row][col] = float_of_e4m3(uint8_t(o.a[i / 4] >> 8 * (i % 4)));
    }
    for (int i = 0; i < 8; ++i)
      b[member * 4 + (i & 3) + (i < 4 ? 0 : 16)][group] = float_of_e4m3(uint8_t(o.b[i / 4] >> 8 * (i % 4)));
  }
  add_products(lanes, a, b);
}

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], void (*multiply)(Lanes&)) {
  MmaOperands o;
  std::memcpy(o.d, d, sizeof d);
  std::memcpy(o.a, a, sizeof a);
  std::memcpy(o.b, b, sizeof b);
  Machine& m = Machine::now();
  m.collective("mma.sync", 0xffffffffu, std::as_bytes(std::span(&o, 1)), std::as_writable_bytes(std::span(d)),
               [&m, multiply](Lanes& lanes) {
                 ++m.counts().mma;
                 multiply(lanes);
               });
}

const std::byte* row_address(const Lanes& lanes, int lane) {
  const std::byte* p;
  std::memcpy(&p, lanes.in[lane], sizeof p);
  return p;
}

// Eight rows of 16 bytes are read at once where they lie in eight different groups of four banks.
int conflicts(const Lanes& lanes, int matrix) {
  int uses[8] = {}, most = 0;
  for (int row = 0; row < 8; ++row)
    most = std::max(most, ++uses[reinterpret_cast<uintptr_t>(row_address(lanes, matrix * 8 + row)) / 16 % 8]);
  return most - 1;
}

void load_matrices(Lanes& lanes, bool transposed) {
  Machine& m = Machine::now();
  for (int lane = 0; lane < 32; ++lane) {
    const std::byte* p = row_address(lanes, lane);
    if (reinterpret_cast<uintptr_t>(p) % 16) throw Fault("simt: ldmatrix from an address that is not a multiple of 16");
    if (!m.in_shared(p, 16)) throw Fault("simt: ldmatrix from outside of shared memory");
    m.reads(p, 16);
  }
  for (int matrix = 0; matrix < 4; ++matrix) {
    m.counts().bank_conflicts += conflicts(lanes, matrix);
    for (int lane = 0; lane < 32; ++lane) {
      uint16_t pair[2];
      for (int half = 0; half < 2; ++half) {
        const int outer = lane / 4, inner = lane % 4 * 2 + half;
        const int row = transposed ? inner : outer, col = transposed ? outer : inner;
        std::memcpy(&pair[half], row_address(lanes, matrix * 8 + row) + 2 * col, 2);
      }
      std::memcpy(lanes.out[lane] + 4 * matrix, pair, 4);
    }
  }
}

}  // namespace

// e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; all ones is NaN.
float float_of_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if ((bits & 127) == 127) return NAN;
  const float size =
      exponent == 0 ? std::ldexp(float(mantissa), -9) : std::ldexp(1.0f + float(mantissa) / 8, exponent - 7);
  return bits & 128 ? -size : size;
}

void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma(d, a, b, multiply_bf16); }
void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma(d, a, b, multiply_e4m3); }

void ldmatrix_x4(uint32_t (&d)[4], const void* row, bool transposed) {
  Machine& m = Machine::now();
  m.collective(transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, std::as_bytes(std::span(&row, 1)),
               std::as_writable_bytes(std::span(d)), [&m, transposed](Lanes& lanes) {
                 ++m.counts().ldmatrix;
                 load_matrices(lanes, transposed);
               });
}

void cp_async_16(void* shared, const void* global, bool valid) {
  Machine& m = Machine::now();
  if (reinterpret_cast<uintptr_t>(shared) % 16 || (valid && reinterpret_cast<uintptr_t>(global) % 16))
    throw Fault("simt: cp.async of 16 bytes with an address that is not a multiple of 16");
  if (!m.in_shared(shared, 16)) throw Fault("simt: cp.async to outside of shared memory");
  ++m.counts().async_copies;
  m.write_begins(shared, 16);
  m.self().open.push_back({shared, global, 16, valid});
}

void cp_async_commit() {
  Thread& t = Machine::now().self();
  t.groups.push_back(std::move(t.open));
  t.open.clear();
}

void cp_async_wait(int pending) {
  Machine& m = Machine::now();
  auto& groups = m.self().groups;
  while (int(groups.size()) > pending) {
    auto& group = groups.front();
    std::shuffle(group.begin(), group.end(), m.random());
    for (AsyncCopy& copy : group) {
      copy.land();
      m.write_ends(copy.to, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace simt
