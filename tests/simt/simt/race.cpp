#include "simt/race.h"

#include <algorithm>

namespace simt {

void RaceCheck::reset(size_t bytes, unsigned warps) {
  warps_ = warps;
  clocks_.assign(warps + 1, empty());
  for (unsigned i = 0; i <= warps; ++i) clocks_[i][i] = 1;
  const size_t chunks = (bytes + kChunk - 1) / kChunk;
  chunks_.assign(chunks, Chunk{});
  reads_.assign(chunks * (warps + 1), 0);
}

std::string RaceCheck::name(unsigned agent) const {
  return agent == warps_ ? "a bulk copy" : "warp " + std::to_string(agent);
}

void RaceCheck::release(unsigned agent, Clock* into) {
  if (into->empty()) *into = empty();
  for (unsigned i = 0; i <= warps_; ++i) (*into)[i] = std::max((*into)[i], clocks_[agent][i]);
  ++clocks_[agent][agent];
}

void RaceCheck::acquire(unsigned agent, const Clock& from) {
  for (unsigned i = 0; i < from.size(); ++i) clocks_[agent][i] = std::max(clocks_[agent][i], from[i]);
}

std::string RaceCheck::read(unsigned agent, size_t at, size_t bytes) {
  for (size_t c = at / kChunk; c < (at + bytes + kChunk - 1) / kChunk; ++c) {
    const Chunk& chunk = chunks_[c];
    if (chunk.flights) return name(agent) + " reads what a copy in flight writes";
    if (!knows(agent, chunk.writer, chunk.written))
      return name(agent) + " reads what " + name(chunk.writer) + " wrote, with no barrier between";
    reads_[c * (warps_ + 1) + agent] = clocks_[agent][agent];
  }
  return {};
}

std::string RaceCheck::write_begins(unsigned agent, size_t at, size_t bytes) {
  for (size_t c = at / kChunk; c < (at + bytes + kChunk - 1) / kChunk; ++c) {
    Chunk& chunk = chunks_[c];
    if (chunk.flights) return name(agent) + " overwrites what a copy in flight writes";
    if (!knows(agent, chunk.writer, chunk.written))
      return name(agent) + " overwrites what " + name(chunk.writer) + " wrote, with no barrier between";
    for (unsigned other = 0; other <= warps_; ++other)
      if (!knows(agent, other, reads_[c * (warps_ + 1) + other]))
        return name(agent) + " overwrites what " + name(other) + " reads, with no barrier between";
    ++chunk.flights;
  }
  return {};
}

void RaceCheck::write_ends(unsigned agent, size_t at, size_t bytes) {
  for (size_t c = at / kChunk; c < (at + bytes + kChunk - 1) / kChunk; ++c) {
    --chunks_[c].flights;
    chunks_[c].writer = agent;
    chunks_[c].written = clocks_[agent][agent];
  }
}

}  // namespace simt
