#include "simt/machine.h"

#include <algorithm>
#include <cstring>

#include "simt/device.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, bytes) ((void)0)
#endif

namespace simt {
namespace {

Machine* running = nullptr;

std::string place(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

std::string name_of(const Index3& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

}  // namespace

void AsyncCopy::land() {
  if (landed) return;
  landed = true;
  if (valid)
    std::memcpy(to, from, bytes);
  else
    std::memset(to, 0, bytes);
}

bool planted(const char* name) {
  Machine& m = Machine::now();
  if (m.config().planted != name) return false;
  ++m.counts().planted_hits;
  return true;
}

Machine& Machine::now() {
  if (!running) throw Fault("simt: a device function was called outside of a launch");
  return *running;
}

Machine::Machine(const LaunchConfig& config, const std::function<void()>& kernel, Counts* counts)
    : config_(config), kernel_(kernel), counts_(counts), random_(config.seed) {
  for (unsigned i = 0; i < config.block.count(); ++i) {
    threads_.push_back(std::make_unique<Thread>());
    threads_[i]->rank = i;
    threads_[i]->index = {i % config.block.x, i / config.block.x % config.block.y, i / config.block.x / config.block.y};
  }
}

void Machine::wait(const void* channel, const char* what, const Site& site) {
  Thread& t = self();
  t.waits_for = what;
  t.waits_at = site;
  waiting_.emplace_back(channel, current_);
  t.fiber.leave();
}

void Machine::wake(const void* channel) {
  std::erase_if(waiting_, [&](const auto& entry) {
    if (entry.first != channel) return false;
    threads_[entry.second]->waits_for = nullptr;
    ready_.push_back(entry.second);
    return true;
  });
}

void Machine::arrive(unsigned id, unsigned threads) {
  if (id >= std::size(barriers_)) throw Fault("simt: there is no barrier " + std::to_string(id));
  if (threads == 0 || threads % 32 || threads > threads_.size())
    throw Fault("simt: barrier " + std::to_string(id) + " for " + std::to_string(threads) + " threads");
  Barrier& b = barriers_[id];
  if (b.arrived == 0) b.expected = threads;
  if (b.expected != threads)
    throw Fault("simt: barrier " + std::to_string(id) + " entered for " + std::to_string(threads) + " and for " +
                std::to_string(b.expected) + " threads");
  races_.release(current_ / 32, &b.clock);
  if (++b.arrived == b.expected) {
    b.arrived = 0;
    ++counts_->barriers;
    wake(&b);
  }
}

void Machine::sync(unsigned id, unsigned threads, const Site* same_place) {
  Barrier& b = barriers_[id];
  if (same_place) {
    if (b.arrived && (b.site.line() != same_place->line() || std::strcmp(b.site.file_name(), same_place->file_name())))
      throw Fault("simt: divergent barrier: thread " + name_of(self().index) + " is at " + place(*same_place) +
                  ", others wait at " + place(b.site));
    for (const auto& t : threads_)
      if (t->done)
        throw Fault("simt: divergent barrier: thread " + name_of(t->index) + " ended before " + place(*same_place));
    b.site = *same_place;
    threads = unsigned(threads_.size());
  }
  arrive(id, threads);
  if (b.arrived) wait(&b, "a barrier", same_place ? *same_place : Site{});
  // Later arrivals at the same barrier may have joined its clock already; they cannot have done anything in between
  // that this thread could race with, unless they arrived without waiting, and then the pair of barriers is at fault.
  races_.acquire(current_ / 32, b.clock);
}

void Machine::reads(const void* p, size_t bytes) {
  if (!in_dynamic_shared(p, bytes)) return;
  const std::string wrong =
      races_.read(current_ / 32, size_t(static_cast<const std::byte*>(p) - dynamic_shared_), bytes);
  if (!wrong.empty()) throw Fault("simt: race: " + wrong);
}

void Machine::write_begins(const void* p, size_t bytes) {
  if (!in_dynamic_shared(p, bytes)) return;
  const std::string wrong =
      races_.write_begins(current_ / 32, size_t(static_cast<const std::byte*>(p) - dynamic_shared_), bytes);
  if (!wrong.empty()) throw Fault("simt: race: " + wrong);
}

void Machine::write_ends(const void* p, size_t bytes, bool by_engine) {
  if (!in_dynamic_shared(p, bytes)) return;
  races_.write_ends(by_engine ? races_.engine() : current_ / 32,
                    size_t(static_cast<const std::byte*>(p) - dynamic_shared_), bytes);
}

bool Machine::in_dynamic_shared(const void* p, size_t bytes) const {
  const auto* at = static_cast<const std::byte*>(p);
  return at >= dynamic_shared_ && at + bytes <= dynamic_shared_ + config_.shared_bytes;
}

void Machine::collective(const char* operation, uint32_t mask, std::span<const std::byte> in, std::span<std::byte> out,
                         const std::function<void(Lanes&)>& act) {
  Warp& w = warp();
  const unsigned me = lane();
  const auto who = [&] { return "simt: thread " + name_of(self().index); };
  if (!(mask >> me & 1)) throw Fault(who() + " calls " + operation + " but is not in its mask");
  const unsigned first = current_ - me;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1 && (first + i >= threads_.size() || threads_[first + i]->done))
      throw Fault(who() + " calls " + operation + " with lane " + std::to_string(i) + ", which does not run any more");
  if (w.arrived == 0) {
    w.operation = operation;
    w.mask = mask;
  } else if (std::strcmp(w.operation, operation) || w.mask != mask) {
    throw Fault(who() + " is in a divergent warp: it is at " + operation + ", other lanes at " + w.operation);
  }
  std::copy(in.begin(), in.end(), w.lanes.in[me]);
  w.arrived |= 1u << me;
  if (w.arrived == w.mask) {
    act(w.lanes);
    w.arrived = 0;
    ++counts_->collectives;
    wake(&w);
  } else {
    wait(&w, operation);
  }
  std::copy_n(w.lanes.out[me], out.size(), out.begin());
}

void* Machine::shared_variable(const char* function, unsigned line, size_t bytes) {
  for (const Variable& v : variables_)
    if (v.line == line && v.bytes == bytes && v.function == function) return v.storage.get();
  variables_.push_back({function, line, bytes, std::make_unique_for_overwrite<std::byte[]>(bytes)});
  std::memset(variables_.back().storage.get(), 0xff, bytes);
  return variables_.back().storage.get();
}

bool Machine::in_shared(const void* p, size_t bytes) const {
  const auto* at = static_cast<const std::byte*>(p);
  return in_dynamic_shared(p, bytes) || std::any_of(variables_.begin(), variables_.end(), [&](const Variable& v) {
           return at >= v.storage.get() && at + bytes <= v.storage.get() + v.bytes;
         });
}

void Machine::run_thread() {
  Thread& t = self();
  try {
    kernel_();
    check_exit();
  } catch (...) {
    error_ = std::current_exception();
  }
  t.done = true;
}

void Machine::check_exit() {
  const Thread& t = self();
  if (!t.open.empty() || std::any_of(t.groups.begin(), t.groups.end(), [](const auto& g) { return !g.empty(); }))
    throw Fault("simt: thread " + name_of(t.index) + " ended with cp.async copies that it never waited for");
  if (!t.tensor_open.empty() || !t.tensor_groups.empty())
    throw Fault("simt: thread " + name_of(t.index) + " ended with wgmma in flight");
  if (const Warp& w = warp(); w.arrived && w.mask >> lane() & 1)
    throw Fault("simt: thread " + name_of(t.index) + " ended, so that lane " + std::to_string(lane()) +
                " does not run any more where " + w.operation + " waits for it");
  if (barriers_[0].arrived && barriers_[0].site.line())
    throw Fault("simt: divergent barrier: thread " + name_of(t.index) + " ended, others wait at " +
                place(barriers_[0].site));
}

// Copies may land long before anybody waits for them, in any order.
void Machine::land_some() {
  if (!events_.empty() && (ready_.empty() || random_() % 8 == 0)) {
    std::swap(events_[random_() % events_.size()], events_.back());
    const Event event = std::move(events_.back());
    events_.pop_back();
    event();
  }
  if (random_() % 4) return;
  Thread& t = *threads_[random_() % threads_.size()];
  if (t.groups.empty()) return;
  auto& group = t.groups[random_() % t.groups.size()];
  if (!group.empty()) group[random_() % group.size()].land();
}

void Machine::deadlock() {
  std::map<std::string, std::pair<unsigned, std::string>> places;
  for (const auto& t : threads_)
    if (!t->done) {
      auto& [count, first] = places[t->waits_for + (t->waits_at.line() ? " at " + place(t->waits_at) : std::string())];
      if (count++ == 0) first = name_of(t->index);
    }
  std::string text = "simt: deadlock in block " + name_of({blockIdx.x, blockIdx.y, blockIdx.z}) + ":";
  for (const auto& [what, who] : places)
    text += " " + std::to_string(who.first) + " thread(s) from " + who.second + " on wait for " + what + ";";
  throw Fault(text);
}

void Machine::reset(Index3 block) {
  blockIdx = {block.x, block.y, block.z};
  variables_.clear();
  // One allocation a block: what a block leaves behind is never what the next one finds. 0xff bytes are NaN in bf16 and
  // float32 alike.
  constexpr size_t kAlign = 1024;
  const size_t bytes = config_.shared_bytes, room = bytes + 2 * kAlign;
  shared_storage_ = std::make_unique_for_overwrite<std::byte[]>(room);
  std::memset(shared_storage_.get(), 0xff, room);
  const size_t skip = kAlign - reinterpret_cast<uintptr_t>(shared_storage_.get()) % kAlign;
  dynamic_shared_ = shared_storage_.get() + skip;
  ASAN_POISON_MEMORY_REGION(shared_storage_.get(), skip);
  ASAN_POISON_MEMORY_REGION(dynamic_shared_ + bytes, room - skip - bytes);
  races_.reset(bytes, unsigned(threads_.size() + 31) / 32);
  std::fill(std::begin(barriers_), std::end(barriers_), Barrier{});
  warps_.assign((threads_.size() + 31) / 32, Warp{});
  waiting_.clear();
  events_.clear();
  mbarriers_.clear();
  ready_.clear();
  for (unsigned i = 0; i < threads_.size(); ++i) {
    Thread& t = *threads_[i];
    t.done = false;
    t.waits_for = nullptr;
    t.open.clear();
    t.groups.clear();
    t.tensor_open.clear();
    t.tensor_groups.clear();
    t.tensor_fence = false;
    t.fiber.start([](void* m) { static_cast<Machine*>(m)->run_thread(); }, this);
    ready_.push_back(i);
  }
}

void Machine::run_block(Index3 block) {
  reset(block);
  for (size_t left = threads_.size(); left > 0;) {
    land_some();
    if (ready_.empty()) {
      if (events_.empty()) deadlock();
      continue;
    }
    std::swap(ready_[random_() % ready_.size()], ready_.back());
    current_ = ready_.back();
    ready_.pop_back();
    Thread& t = self();
    threadIdx = {t.index.x, t.index.y, t.index.z};
    t.fiber.resume();
    if (error_) std::rethrow_exception(error_);
    if (t.done) --left;
  }
  if (!events_.empty()) throw Fault("simt: a block ended with bulk copies in flight");
}

Counts launch(const LaunchConfig& config, const std::function<void()>& kernel) {
  const Extent3 &g = config.grid, &b = config.block;
  if (b.count() == 0 || b.count() > 1024 || g.count() == 0)
    throw Fault("simt: a launch of " + std::to_string(g.count()) + " blocks of " + std::to_string(b.count()) +
                " threads");
  if (running) throw Fault("simt: a launch inside a launch");
  Counts counts;
  Machine machine(config, kernel, &counts);
  struct Scope {
    explicit Scope(Machine* m) { running = m; }
    ~Scope() { running = nullptr; }
  } scope(&machine);
  gridDim = {g.x, g.y, g.z};
  blockDim = {b.x, b.y, b.z};
  std::vector<unsigned> order(g.count());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), machine.random());
  for (unsigned i : order) machine.run_block({i % g.x, i / g.x % g.y, i / g.x / g.y});
  return counts;
}

}  // namespace simt
