// What a servo thread is granted and what not, in words: every answer of an operating system, and this one's.
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <thread>

#include "check.h"
#include "runtime/realtime.h"
#include "wamcore/error.h"

using namespace wam;

namespace {

// An operating system that answers as it is told, and remembers what it was asked.
int fifo_answer, bind_answer, lock_answer, asked_priority, asked_cpu, asked;
constexpr RealtimeCalls kTold{[](int priority) { return ++asked, asked_priority = priority, fifo_answer; },
                              [](int cpu) { return ++asked, asked_cpu = cpu, bind_answer; },
                              [] { return ++asked, lock_answer; }};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// On a thread of its own, since a thread stays what it has become. What was thrown is words too.
std::string enter(Realtime wish, int priority, int cpu, const RealtimeCalls& calls = kTold) {
  std::string words;
  std::thread([&] {
    try {
      words = enter_realtime(wish, priority, cpu, calls);
    } catch (const RobotError& e) {
      words = e.what();
    }
  }).join();
  return words;
}

TEST(every_answer_is_told_and_every_refusal_is_loud) {
  for (int granted = 0; granted < 8; ++granted)
    for (int cpu : {-1, 3})
      for (Realtime wish : {Realtime::prefer, Realtime::enforce}) {
        fifo_answer = granted & 1 ? 0 : EPERM, bind_answer = granted & 2 ? 0 : EINVAL;
        lock_answer = granted & 4 ? 0 : ENOMEM, asked = 0, asked_cpu = -1;
        const std::string words = enter(wish, 42, cpu);
        const bool bound = cpu < 0 || granted & 2, all = granted & 1 && bound && granted & 4;
        const bool nothing = !(granted & 1) && !(cpu >= 0 && granted & 2) && !(granted & 4);
        CHECK(asked == (cpu < 0 ? 2 : 3) && asked_priority == 42 &&
              asked_cpu == cpu);  // all of them, whatever the first says
        CHECK(contains(words, "SCHED_FIFO 42 refused: Operation not permitted") == !(granted & 1));
        CHECK(contains(words, "core 3 refused: Invalid argument") == !bound);
        CHECK(contains(words, "locked memory refused: Cannot allocate memory") == !(granted & 4));
        const bool loud = contains(words, "NOT"), threw = contains(words, "Runner.start: no real-time thread: ");
        CHECK(loud == (!all && wish == Realtime::prefer));
        CHECK(threw == (!all && wish == Realtime::enforce));
        if (wish == Realtime::prefer) CHECK(contains(words, "NOT REAL-TIME: ") == nothing);
        if (all) CHECK(words == std::string("SCHED_FIFO 42, ") + (cpu < 0 ? "" : "core 3, ") + "locked memory");
      }
}

TEST(who_does_not_ask_gets_nothing) {
  asked = 0;
  CHECK(enter(Realtime::ignore, 42, 3) == "not asked for" && asked == 0);
}

// What the words claim is what the kernel says of the thread.
int claims_hold() {
  int wrong = 0;
  std::thread([&] {
    const std::string words = enter_realtime(Realtime::prefer, 7, 0);
    int policy = 0;
    sched_param param{};
    pthread_getschedparam(pthread_self(), &policy, &param);
    wrong += (policy == SCHED_FIFO && param.sched_priority == 7) == contains(words, "SCHED_FIFO 7 refused");
    cpu_set_t cores;
    pthread_getaffinity_np(pthread_self(), sizeof cores, &cores);
    const bool bound = CPU_COUNT(&cores) == 1 && CPU_ISSET(0, &cores);
    wrong += !contains(words, "core 0 refused") && !bound;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they make mlockall do nothing, and say it did
    std::ifstream status("/proc/self/status");
    bool locked = false;
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmLck:")) locked = line.find_first_of("123456789") != std::string::npos;
    wrong += locked == contains(words, "locked memory refused");
#endif
    if (wrong) std::printf("  %s\n", words.c_str());
  }).join();
  return wrong;
}

// What a child, whose memory nobody misses, returns; -1 if it did not come to that.
template <typename Look>
int in_a_child(Look&& look) {
  const pid_t child = fork();
  if (child == 0) _exit(look());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(this_systems_answers_are_true) { CHECK(in_a_child(claims_hold) == 0); }

TEST(a_process_without_privileges_is_told_so) {
  constexpr int kCannotDrop = 99;
  const int wrong = in_a_child([] {
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_RTPRIO, &none) || setrlimit(RLIMIT_MEMLOCK, &none)) return kCannotDrop;
    if (geteuid() == 0 && setuid(65534) != 0) return kCannotDrop;
    const RealtimeCalls& system = system_realtime_calls();
    return claims_hold() + !contains(enter(Realtime::prefer, 7, -1, system), "SCHED_FIFO 7 refused: ") +
           !contains(enter(Realtime::enforce, 7, -1, system), "no real-time thread: SCHED_FIFO 7 refused: ");
  });
  if (wrong == kCannotDrop) std::printf("     this process cannot give up its privileges\n");
  CHECK(wrong == 0 || wrong == kCannotDrop);
}

TEST(a_core_that_is_not_there_is_refused) {
  for (int cpu : {CPU_SETSIZE - 1, CPU_SETSIZE, 1 << 30})
    CHECK(contains(enter(Realtime::enforce, 1, cpu, system_realtime_calls()),
                   "core " + std::to_string(cpu) + " refused: Invalid argument"));
}

}  // namespace

CHECK_MAIN()
