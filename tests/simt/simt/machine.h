#pragma once

// A CUDA device on the CPU, slow and strict: it runs a kernel's own source, one fiber per CUDA thread, and turns every
// liberty that the programming model leaves to the hardware into a seeded random choice. What a kernel may not do
// (barriers that not all threads reach, collectives that lanes disagree about, copies that nobody waits for) ends the
// launch with a Fault that says who stood where.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <source_location>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "simt/fiber.h"
#include "simt/race.h"

namespace simt {

using Site = std::source_location;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
struct Extent3 {
  unsigned x = 1, y = 1, z = 1;
  unsigned count() const { return x * y * z; }
};

/// A rule of the programming model was broken.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct LaunchConfig {
  Extent3 grid;
  Extent3 block;
  size_t shared_bytes = 0;  // dynamic shared memory; allocated to the byte, so that the address sanitizer sees its end
  unsigned seed = 1;        // order of blocks, of threads between rendezvous, and of asynchronous copies
  std::string planted;      // name of a bug to switch on in the kernel's source, see planted()
};

/// What ran, summed over all blocks.
struct Counts {
  int64_t barriers = 0, collectives = 0, mma = 0, ldmatrix = 0, async_copies = 0;
  int64_t wgmma = 0, bulk_copies = 0;
  int64_t bank_conflicts = 0;  // ldmatrix phases, beyond the one that each matrix needs
  int64_t planted_hits = 0;    // times a planted bug changed the course of the kernel
};

/// Runs `kernel` once per thread of the grid. Throws Fault.
Counts launch(const LaunchConfig& config, const std::function<void()>& kernel);

// ---- below: for the device functions that the harness offers to kernels ----

/// An access to shared memory that the hardware carries out later, in an order of its own.
struct AsyncCopy {
  void* to;
  const void* from;
  uint32_t bytes;
  bool valid;  // false: zeros are written and `from` is not read
  bool landed = false;
  void land();
};

/// One asynchronous product of a warpgroup: d (+)= a b with [64, n], [64, 16], [16, n].
struct WgmmaOperands {
  float* d;  // n / 2 of the calling thread
  int n;
  const uint32_t* a_registers;  // nullptr where `a` describes a in shared memory
  uint64_t a, b;
  bool b_transposed;  // b lies as [k, n] with n contiguous
  bool accumulate;
  bool small = false;  // e4m3 instead of bf16: a is [64, 32], b [32, n]
};

/// Arrivals and announced bytes still to come in this phase.
struct Mbarrier {
  unsigned arrivals = 0, pending = 0, phase = 0;
  int64_t bytes = 0;
  Clock clock = {};
};

struct Thread {
  Fiber fiber;
  Index3 index;
  unsigned rank = 0;  // in the block
  bool done = false;
  const char* waits_for = nullptr;  // nullptr while it can run
  Site waits_at;
  std::vector<AsyncCopy> open;                            // cp.async since the last commit
  std::vector<std::vector<AsyncCopy>> groups;             // committed, oldest first
  std::vector<WgmmaOperands> tensor_open;                 // wgmma since the last commit
  std::vector<std::vector<WgmmaOperands>> tensor_groups;  // committed, oldest first
  bool tensor_fence = false;                              // since registers could last change
};

/// The operands of one warp-wide operation.
struct Lanes {
  alignas(16) std::byte in[32][64];
  alignas(16) std::byte out[32][64];
};

struct Warp {
  Lanes lanes;
  uint32_t arrived = 0, mask = 0;
  const char* operation = "";
};

struct Barrier {
  unsigned arrived = 0, expected = 0;
  Site site;
  Clock clock;
};

/// An event that the hardware brings about by itself, after any delay: a bulk copy that completes.
using Event = std::function<void()>;

/// One block while it runs.
class Machine {
 public:
  static Machine& now();

  Thread& self() { return *threads_[current_]; }
  Thread& thread(unsigned rank) { return *threads_[rank]; }
  Warp& warp() { return warps_[current_ / 32]; }
  unsigned lane() const { return current_ % 32; }
  std::mt19937& random() { return random_; }
  Counts& counts() { return *counts_; }
  const LaunchConfig& config() const { return config_; }

  /// The calling thread stops until wake(channel). `what` and `site` are shown if it never wakes.
  void wait(const void* channel, const char* what, const Site& site = {});
  void wake(const void* channel);
  /// barrier `id` with `threads` arrivals. A barrier that all threads must reach at one place in the source says so.
  void sync(unsigned id, unsigned threads, const Site* same_place);
  void arrive(unsigned id, unsigned threads);
  /// All lanes of `mask` meet; the last to come carries out `operation` for all of them.
  void collective(const char* operation, uint32_t mask, std::span<const std::byte> in, std::span<std::byte> out,
                  const std::function<void(Lanes&)>& act);
  /// Something will happen later by itself.
  void later(Event event) { events_.push_back(std::move(event)); }

  // Accesses to dynamic shared memory, for the race check; others are ignored. Throws Fault.
  void reads(const void* p, size_t bytes);
  void write_begins(const void* p, size_t bytes);
  void write_ends(const void* p, size_t bytes, bool by_engine = false);
  RaceCheck& races() { return races_; }
  std::map<const void*, Mbarrier>& mbarriers() { return mbarriers_; }

  std::byte* dynamic_shared() { return dynamic_shared_; }
  /// A __shared__ variable: the same storage for every thread that asks with the same key.
  void* shared_variable(const char* function, unsigned line, size_t bytes);
  bool in_dynamic_shared(const void* p, size_t bytes) const;
  bool in_shared(const void* p, size_t bytes) const;

 private:
  friend Counts launch(const LaunchConfig&, const std::function<void()>&);
  struct Variable {
    std::string function;
    unsigned line;
    size_t bytes;
    std::unique_ptr<std::byte[]> storage;
  };

  Machine(const LaunchConfig& config, const std::function<void()>& kernel, Counts* counts);
  void run_block(Index3 block);
  void run_thread();
  void reset(Index3 block);
  void check_exit();
  void land_some();
  [[noreturn]] void deadlock();

  const LaunchConfig& config_;
  const std::function<void()>& kernel_;
  Counts* counts_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Warp> warps_;
  Barrier barriers_[16];
  RaceCheck races_;
  std::map<const void*, Mbarrier> mbarriers_;
  std::vector<unsigned> ready_;
  std::vector<std::pair<const void*, unsigned>> waiting_;
  std::vector<Event> events_;
  std::vector<Variable> variables_;
  std::unique_ptr<std::byte[]> shared_storage_;
  std::byte* dynamic_shared_ = nullptr;
  unsigned current_ = 0;
  std::exception_ptr error_;
};

/// True once in a kernel's source where the test asked for the bug of this name.
bool planted(const char* name);

}  // namespace simt
