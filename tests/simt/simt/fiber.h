#pragma once

// A function on a stack of its own that can be left in the middle and entered again.
#include <cstddef>
#include <memory>
#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;

  /// The next resume() calls body(argument) from its beginning; whatever ran here before is dropped.
  void start(void (*body)(void*), void* argument);
  /// Runs until the fiber leaves or body returns. Called from the thread's own stack, never from a fiber.
  void resume();
  /// Called on the fiber: back to the caller of resume().
  void leave();
  /// Called on the fiber, once, when it will not be entered again.
  [[noreturn]] void finish();

  void* argument() const { return argument_; }
  void run();  // entry point on the new stack

 private:
  std::unique_ptr<std::byte[]> stack_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
  void* fiber_sp_ = nullptr;  // stack pointers of the side that is not running
  void* caller_sp_ = nullptr;
#else
  ucontext_t fiber_, caller_;
#endif
  const void* caller_stack_ = nullptr;  // known only under the address sanitizer
  size_t caller_stack_bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace simt
