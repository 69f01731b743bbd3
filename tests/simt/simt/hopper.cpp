#include "simt/hopper.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "simt/tensor_core.h"

namespace simt {
namespace {

constexpr uint32_t kWindow = 1024;  // where dynamic shared memory starts in the address space of instructions

std::byte* at_address(uint32_t address) { return Machine::now().dynamic_shared() + (address - kWindow); }

// The 128-byte swizzle, of addresses: which 16 bytes of a line of 128 depends on the line's place among eight.
uint32_t swizzle128(uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

float element(uint32_t address) {
  uint16_t bits;
  std::memcpy(&bits, at_address(swizzle128(address)), 2);
  const uint32_t wide = uint32_t{bits} << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}

float small_element(uint32_t address) {
  uint8_t bits;
  std::memcpy(&bits, at_address(swizzle128(address)), 1);
  return float_of_e4m3(bits);
}

float half_of(uint32_t pair, int half) {
  const uint32_t bits = half ? pair & 0xffff0000u : pair << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// PTX ISA, "Matrix descriptor": address and offsets in units of 16 bytes, swizzle mode in the top bits.
struct Descriptor {
  explicit Descriptor(uint64_t bits)
      : start(uint32_t(bits & 0x3fff) << 4),
        leading(uint32_t(bits >> 16 & 0x3fff) << 4),
        stride(uint32_t(bits >> 32 & 0x3fff) << 4) {
    if (bits >> 62 != 1) throw Fault("simt: wgmma descriptor without the 128-byte swizzle, the only mode known here");
    if (bits >> 49 & 7) throw Fault("simt: wgmma descriptor with a base offset");
  }
  /// Byte `at` of row `row` of an operand whose k is contiguous: groups of 8 rows with 128 bytes each.
  uint32_t by_rows(int row, int at) const { return start + uint32_t(row / 8) * stride + uint32_t(row % 8 * 128 + at); }
  /// Element (k, n) of an operand whose n is contiguous: blocks of 64 columns, each groups of 8 k with 128 bytes each.
  uint32_t by_columns(int k, int n) const {
    return start + uint32_t(n / 64) * leading + uint32_t(k / 8) * stride + uint32_t(k % 8 * 128 + n % 64 * 2);
  }
  uint32_t start, leading, stride;
};

// Calls f(address) for every 16 bytes of an operand [16 k, rows], for the race check.
template <typename F>
void each_chunk(const Descriptor& d, int rows, bool transposed, F f) {
  if (transposed)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < rows; n += 8) f(swizzle128(d.by_columns(k, n)));
  else
    for (int row = 0; row < rows; ++row)
      for (int at = 0; at < 32; at += 16) f(swizzle128(d.by_rows(row, at)));
}

void check_operand(uint64_t bits, int rows, bool transposed) {
  Machine& m = Machine::now();
  each_chunk(Descriptor(bits), rows, transposed, [&](uint32_t address) {
    if (address < kWindow || address + 16 > kWindow + m.config().shared_bytes)
      throw Fault("simt: wgmma operand outside of shared memory");
    m.reads(at_address(address), 16);
  });
}

// One warp's 16 rows of a product, given every lane's operands. PTX ISA, register fragments of wgmma.m64nNk16: warp w
// of the group has rows 16 w to 16 w + 15, spread over its lanes as in mma.m16n8k16.
void multiply(const WgmmaOperands* const (&lanes)[32], int warp) {
  const WgmmaOperands& o = *lanes[0];
  const int depth = o.small ? 32 : 16;  // 32 bytes a row either way
  const auto by_rows = [&o](const Descriptor& d, int row, int k) {
    return o.small ? small_element(d.by_rows(row, k)) : element(d.by_rows(row, 2 * k));
  };
  float a[16][32];
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k) {
      const WgmmaOperands& holder = *lanes[row % 8 * 4 + k % 8 / 2];
      a[row][k] = o.a_registers ? half_of(holder.a_registers[row / 8 + k / 8 * 2], k & 1)
                                : by_rows(Descriptor(o.a), warp * 16 + row, k);
    }
  const Descriptor b(o.b);
  for (int n = 0; n < o.n; ++n) {
    float column[32];
    for (int k = 0; k < depth; ++k) column[k] = o.b_transposed ? element(b.by_columns(k, n)) : by_rows(b, n, k);
    for (int row = 0; row < 16; ++row) {
      const WgmmaOperands& holder = *lanes[row % 8 * 4 + n % 8 / 2];
      float& d = holder.d[n / 8 * 4 + row / 8 * 2 + n % 2];
      float sum = o.accumulate ? d : 0.0f;
      for (int k = 0; k < depth; ++k) sum += a[row][k] * column[k];
      d = sum;
    }
  }
}

}  // namespace

uint32_t shared_address(const void* p) {
  Machine& m = Machine::now();
  if (!m.in_dynamic_shared(p, 1)) throw Fault("simt: the address of something that is not in dynamic shared memory");
  return kWindow + uint32_t(static_cast<const std::byte*>(p) - m.dynamic_shared());
}

// ---- mbarrier ----

namespace {

Mbarrier& find(uint64_t* barrier) {
  auto& all = Machine::now().mbarriers();
  const auto at = all.find(barrier);
  if (at == all.end()) throw Fault("simt: an mbarrier is used before its initialisation");
  return at->second;
}

void complete_if_done(Mbarrier& b) {
  if (b.pending || b.bytes) return;
  b.phase ^= 1;
  b.pending = b.arrivals;
  Machine::now().wake(&b);
}

void arrive(Mbarrier& b) {
  if (b.pending == 0) throw Fault("simt: more arrivals at an mbarrier than its phase takes");
  Machine& m = Machine::now();
  m.races().release(m.self().rank / 32, &b.clock);
  --b.pending;
}

}  // namespace

void mbarrier_init(uint64_t* barrier, unsigned arrivals) {
  Machine::now().mbarriers()[barrier] = {.arrivals = arrivals, .pending = arrivals};
}

void mbarrier_arrive(uint64_t* barrier) {
  Mbarrier& b = find(barrier);
  arrive(b);
  complete_if_done(b);
}

void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  Mbarrier& b = find(barrier);
  b.bytes += bytes;
  arrive(b);
  complete_if_done(b);
}

void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  Machine& m = Machine::now();
  Mbarrier& b = find(barrier);
  while (b.phase == (parity & 1)) m.wait(&b, "an mbarrier");
  m.races().acquire(m.self().rank / 32, b.clock);
}

// ---- bulk copies ----

void bulk_copy(const void* tensor_map, uint64_t* barrier, void* shared, const int (&at)[4]) {
  Machine& m = Machine::now();
  TensorMapFields map;
  std::memcpy(&map, tensor_map, sizeof map);
  if (map.rank < 2 || map.rank > 4 || map.box[0] * map.element_bytes != 128)
    throw Fault("simt: a bulk copy needs 2 to 4 dimensions and a box of 128 bytes in the first");
  if (shared_address(shared) % 1024)
    throw Fault("simt: a swizzled bulk copy to an address that is no multiple of 1024");
  uint32_t lines = 1;
  for (uint32_t i = 1; i < map.rank; ++i) lines *= map.box[i];
  const size_t bytes = size_t{lines} * 128;
  if (!m.in_dynamic_shared(shared, bytes)) throw Fault("simt: a bulk copy to outside of shared memory");
  m.write_begins(shared, bytes);
  ++m.counts().bulk_copies;
  Mbarrier& b = find(barrier);
  const std::vector<int> origin(at, at + 4);
  m.later([=, &m, &b] {
    for (uint32_t line = 0; line < lines; ++line) {
      bool inside = true;
      const std::byte* from = static_cast<const std::byte*>(map.base);
      uint32_t rest = line;
      for (uint32_t d = 1; d < map.rank; ++d) {
        const int64_t c = origin[d] + int64_t{rest % map.box[d]};
        rest /= map.box[d];
        inside = inside && c >= 0 && uint64_t(c) < map.sizes[d];
        from += c * int64_t(map.strides[d - 1]);
      }
      for (uint32_t chunk = 0; chunk < 8; ++chunk) {
        const uint32_t to = swizzle128(shared_address(shared) + line * 128 + chunk * 16);
        for (uint32_t i = 0; i < 16; i += map.element_bytes) {
          const int64_t c = origin[0] + int64_t{(chunk * 16 + i) / map.element_bytes};
          if (inside && c >= 0 && uint64_t(c) < map.sizes[0])
            std::memcpy(at_address(to) + i, from + c * map.element_bytes, map.element_bytes);
          else
            std::memset(at_address(to) + i, 0, map.element_bytes);
        }
      }
    }
    m.write_ends(shared, bytes, true);
    m.races().release(m.races().engine(), &b.clock);
    if (b.bytes < int64_t(bytes)) throw Fault("simt: an mbarrier receives more bytes than were announced");
    b.bytes -= int64_t(bytes);
    complete_if_done(b);
  });
}

// ---- wgmma ----

void wgmma_fence() { Machine::now().self().tensor_fence = true; }

void wgmma(const WgmmaOperands& o) {
  Machine& m = Machine::now();
  Thread& t = m.self();
  if (m.config().block.count() % 128) throw Fault("simt: wgmma in a block that is not made of warpgroups");
  if (o.n < 8 || o.n > 256 || o.n % 8) throw Fault("simt: wgmma of " + std::to_string(o.n) + " columns");
  if (o.small && (o.a_registers || o.b_transposed))
    throw Fault("simt: wgmma of bytes takes both operands from shared memory, k contiguous");
  if (!t.tensor_fence) throw Fault("simt: wgmma without wgmma.fence since the registers could change");
  m.collective("wgmma", 0xffffffffu, {}, {}, [&m, &o](Lanes&) {
    ++m.counts().wgmma;
    if (!o.a_registers) check_operand(o.a, 64, false);
    check_operand(o.b, o.n, o.b_transposed);
  });
  t.tensor_open.push_back(o);
}

void wgmma_commit() {
  Thread& t = Machine::now().self();
  t.tensor_groups.push_back(std::move(t.tensor_open));
  t.tensor_open.clear();
}

// All lanes at once: whoever comes first after the wait may already tell a producer to overwrite the operands.
void wgmma_wait(int pending) {
  Machine& m = Machine::now();
  m.collective("wgmma.wait", 0xffffffffu, {}, {}, [&m, pending](Lanes&) {
    const unsigned first = m.self().rank / 32 * 32;
    const auto group = [&](unsigned lane) -> auto& { return m.thread(first + lane).tensor_groups; };
    for (unsigned lane = 0; lane < 32; ++lane) m.thread(first + lane).tensor_fence = false;
    while (int(group(0).size()) > pending) {
      for (size_t i = 0; i < group(0).front().size(); ++i) {
        const WgmmaOperands* lanes[32];
        for (unsigned lane = 0; lane < 32; ++lane) lanes[lane] = &group(lane).front().at(i);
        // The operands must have stayed what they were until now.
        if (!lanes[0]->a_registers) check_operand(lanes[0]->a, 64, false);
        check_operand(lanes[0]->b, lanes[0]->n, lanes[0]->b_transposed);
        multiply(lanes, int(first / 32 % 4));
      }
      for (unsigned lane = 0; lane < 32; ++lane) group(lane).erase(group(lane).begin());
    }
  });
}

}  // namespace simt
