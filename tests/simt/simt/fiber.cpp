#include "simt/fiber.h"

#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;  // red zones make frames several times larger
void before_switch(void** save, const void* bottom, size_t bytes) {
  __sanitizer_start_switch_fiber(save, bottom, bytes);
}
void after_switch(void* saved, const void** bottom, size_t* bytes) {
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
}
#else
constexpr size_t kStackBytes = 64 << 10;
void before_switch(void**, const void*, size_t) {}
void after_switch(void*, const void**, size_t*) {}
#endif

}  // namespace

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {}

void Fiber::run() {
  after_switch(nullptr, &caller_stack_, &caller_stack_bytes_);
  body_(argument_);
  finish();
}

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)

// Saves what a call must preserve, swaps stacks and returns there. swapcontext() would do, at two system calls a
// switch.
extern "C" void simt_switch_stack(void** save, void* to);
extern "C" void simt_enter_fiber();
asm(R"(
.text
.globl simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
.globl simt_enter_fiber
.type simt_enter_fiber, @function
simt_enter_fiber:
  movq %rbx, %rdi
  xorl %ebp, %ebp
  call simt_run_fiber
  ud2
.size simt_enter_fiber, .-simt_enter_fiber
)");
extern "C" __attribute__((used)) void simt_run_fiber(Fiber* fiber) { fiber->run(); }

void Fiber::start(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack_.get()) + kStackBytes) & ~uintptr_t{63};
  void** sp = reinterpret_cast<void**>(top) - 2;  // leaves the stack aligned to 16 where simt_enter_fiber calls
  *--sp = reinterpret_cast<void*>(simt_enter_fiber);
  *--sp = nullptr;                              // rbp
  *--sp = this;                                 // rbx
  for (int i = 0; i < 4; ++i) *--sp = nullptr;  // r12 to r15
  fiber_sp_ = sp;
}

void Fiber::resume() {
  void* fake = nullptr;
  before_switch(&fake, stack_.get(), kStackBytes);
  simt_switch_stack(&caller_sp_, fiber_sp_);
  after_switch(fake, nullptr, nullptr);
}

void Fiber::leave() {
  before_switch(&fake_stack_, caller_stack_, caller_stack_bytes_);
  simt_switch_stack(&fiber_sp_, caller_sp_);
  after_switch(fake_stack_, &caller_stack_, &caller_stack_bytes_);
}

void Fiber::finish() {
  before_switch(nullptr, caller_stack_, caller_stack_bytes_);
  simt_switch_stack(&fiber_sp_, caller_sp_);
  std::abort();
}

#else

namespace {
void enter(unsigned low, unsigned high) {
  reinterpret_cast<Fiber*>(uintptr_t{low} | (uintptr_t{high} << 16 << 16))->run();
}
}  // namespace

void Fiber::start(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  getcontext(&fiber_);
  fiber_.uc_stack.ss_sp = stack_.get();
  fiber_.uc_stack.ss_size = kStackBytes;
  fiber_.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&fiber_, reinterpret_cast<void (*)()>(enter), 2, unsigned(self), unsigned(self >> 16 >> 16));
}

void Fiber::resume() {
  void* fake = nullptr;
  before_switch(&fake, stack_.get(), kStackBytes);
  swapcontext(&caller_, &fiber_);
  after_switch(fake, nullptr, nullptr);
}

void Fiber::leave() {
  before_switch(&fake_stack_, caller_stack_, caller_stack_bytes_);
  swapcontext(&fiber_, &caller_);
  after_switch(fake_stack_, &caller_stack_, &caller_stack_bytes_);
}

void Fiber::finish() {
  before_switch(nullptr, caller_stack_, caller_stack_bytes_);
  swapcontext(&fiber_, &caller_);
  std::abort();
}

#endif

}  // namespace simt
