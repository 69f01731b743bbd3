#pragma once

// Finds accesses to shared memory that no barrier puts in order, whatever order they happened to run in. Warps are the
// agents: each has a vector clock that barriers join; a further agent stands for the engine that carries out bulk
// copies. Accesses are known where kernels make them through instructions of the machine (ldmatrix, cp.async, bulk
// copies, wgmma); plain loads and stores are not seen, the poison in shared memory is there for those.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simt {

/// How much of each agent's past is known somewhere.
using Clock = std::vector<uint32_t>;

class RaceCheck {
 public:
  /// Forgets all; `bytes` of shared memory, `warps` agents beside the copy engine.
  void reset(size_t bytes, unsigned warps);

  unsigned engine() const { return warps_; }
  Clock empty() const { return Clock(warps_ + 1, 0); }
  /// What `agent` did so far becomes known to whoever acquires `into`.
  void release(unsigned agent, Clock* into);
  void acquire(unsigned agent, const Clock& from);

  // Each returns what went wrong, or an empty string. Offsets and sizes in bytes from the start of shared memory.
  std::string read(unsigned agent, size_t at, size_t bytes);
  /// From here on the bytes may change at any moment...
  std::string write_begins(unsigned agent, size_t at, size_t bytes);
  /// ...until here, where they are known to have changed.
  void write_ends(unsigned agent, size_t at, size_t bytes);

 private:
  static constexpr size_t kChunk = 16;
  struct Chunk {
    uint32_t flights = 0;              // writes that began and did not end
    uint32_t writer = 0, written = 0;  // agent and its time; 0 is the beginning of the block
  };
  bool knows(unsigned agent, unsigned other, uint32_t time) const { return clocks_[agent][other] >= time; }
  std::string name(unsigned agent) const;

  unsigned warps_ = 0;
  std::vector<Clock> clocks_;
  std::vector<Chunk> chunks_;
  std::vector<uint32_t> reads_;  // [chunks, agents], time of the last read
};

}  // namespace simt
