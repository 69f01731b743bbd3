// The pool: every rank runs once, errors come back, several callers share, nothing hangs.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>
#include <set>

#include "check.h"
#include "core/thread_pool.h"
#include "wamcore/error.h"

using namespace wam;
using kernels::Team;

TEST(every_rank_runs_once) {
  for (const int size : {1, 2, 3, 7}) {
    ThreadPool pool(size);
    CHECK(pool.size() == size);
    std::vector<int> seen(size);
    for (int round = 0; round < 200; ++round) pool.run([&](const Team& team) { seen[team.rank] += team.size; });
    for (const int n : seen) CHECK(n == 200 * size);
  }
  CHECK(available_cpus() >= 1 && available_cpus() <= kMostThreads);
  CHECK_THROWS(ThreadPool(0), ConfigError, "got 0");
  CHECK_THROWS(ThreadPool(-1), ConfigError, "got -1");
  CHECK_THROWS(ThreadPool(100000), ConfigError, "got 100000");
}

TEST(workers_asleep_wake_up) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  for (int round = 0; round < 200 && threads.size() < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // long past spinning and yielding
    pool.run([&](const Team&) {
      {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // while one share runs, others take the rest
    });
  }
  CHECK(threads.size() == 3);
}

// A thread that holds a share may be held up; those without one hold nobody up.
TEST(the_caller_needs_no_worker) {
  ThreadPool pool(2);
  std::atomic<bool> held{false}, release{false};
  std::thread blocker([&] {
    pool.run([&](const Team& team) {
      if (team.rank == 1) return;
      held = true;
      while (!release) std::this_thread::yield();
    });
  });
  while (!held) std::this_thread::yield();
  ThreadPool other(2);
  int ran = 0;
  for (int round = 0; round < 100; ++round)
    other.run([&](const Team& team) {
      if (team.rank == 0) ++ran;
    });
  CHECK(ran == 100);
  release = true;
  blocker.join();
}

std::vector<int> cores_of_this_thread() {
  cpu_set_t set;
  CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

TEST(pinned_threads_stay_on_their_cores) {
  const std::vector<int> mine = cores_of_this_thread();
  const std::thread::id caller = std::this_thread::get_id();
  for (int size = 1; size <= std::min<int>(3, int(mine.size())); ++size) {
    const std::vector<int> cores(mine.rbegin(), mine.rbegin() + size);
    ThreadPool pool(size, cores);
    CHECK(pool.caller_core() == cores[0]);
    std::mutex mutex;
    std::set<int> used;  // by workers
    std::atomic<bool> right = true;
    for (int round = 0; round < 2000 && int(used.size()) < size - 1; ++round)
      pool.run([&](const Team&) {
        const std::vector<int> here = cores_of_this_thread();
        if (std::this_thread::get_id() == caller) {
          if (here != mine) right = false;                            // a pool moves nobody else's thread
          std::this_thread::sleep_for(std::chrono::milliseconds(1));  // others take the rest meanwhile
          return;
        }
        const std::lock_guard lock(mutex);
        if (here.size() != 1 || here[0] != sched_getcpu()) right = false;
        used.insert(here[0]);
      });
    CHECK(right);
    CHECK(used == std::set<int>(cores.begin() + 1, cores.end()));
    {
      const OnCore here(pool.caller_core());
      CHECK(cores_of_this_thread() == std::vector<int>{cores[0]});
      CHECK(sched_getcpu() == cores[0]);
    }
    CHECK(cores_of_this_thread() == mine);
  }
  CHECK(ThreadPool(1).caller_core() == -1);
  { const OnCore nowhere(-1); }
  CHECK(cores_of_this_thread() == mine);
}

TEST(cores_that_are_not_there_are_refused) {
  const int mine = cores_of_this_thread()[0];
  CHECK_THROWS(ThreadPool(1, {CPU_SETSIZE + 3}), ConfigError, "got " + std::to_string(CPU_SETSIZE + 3));
  CHECK_THROWS(ThreadPool(1, {-1}), ConfigError, "got -1");
  CHECK_THROWS(ThreadPool(2, {mine, mine}), ConfigError, "core " + std::to_string(mine) + " is given twice");
  CHECK_THROWS(ThreadPool(2, {mine}), ConfigError, "wanted a core for each of 2 threads, got 1");
  CHECK_THROWS(OnCore(CPU_SETSIZE - 1), DeviceError, "cannot go to core " + std::to_string(CPU_SETSIZE - 1));
}

TEST(an_exception_of_any_rank_reaches_the_caller) {
  for (const int size : {1, 4}) {
    ThreadPool pool(size);
    for (int thrower = 0; thrower < size; ++thrower) {
      CHECK_THROWS(pool.run([&](const Team& team) {
        if (team.rank == thrower) throw WeightError("rank " + std::to_string(thrower));
      }),
                   WeightError, "rank " + std::to_string(thrower));
      int ran = 0;
      pool.run([&](const Team& team) {
        if (team.rank == 0) ++ran;
      });
      CHECK(ran == 1);
    }
  }
}

TEST(nested_runs_are_refused) {
  ThreadPool pool(2), other(1);
  CHECK_THROWS(pool.run([&](const Team&) { pool.run([](const Team&) {}); }), std::logic_error, "inside a team");
  CHECK_THROWS(other.run([&](const Team&) { pool.run([](const Team&) {}); }), std::logic_error, "inside a team");
  int ran = 0;
  other.run([&](const Team&) { ++ran; });
  CHECK(ran == 1);
}

TEST(callers_take_turns) {
  ThreadPool pool(2);
  int inside = 0, total = 0;  // not atomic: only one team runs at a time
  bool alone = true;
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        pool.run([&](const Team& team) {
          if (team.rank > 0) return;
          alone &= ++inside == 1;
          ++total;
          --inside;
        });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(alone && total == 300);
}

// Two callers that always have work for the pool get about as much of it each, and the one that waits is not overtaken.
// Runs are counted, not timed. A machine may put a caller aside between saying that it waits and waiting, and the other
// is right to go on; that is rare, so one window of several without it will do.
TEST(two_callers_get_equal_shares) {
  ThreadPool pool(2);
  constexpr int kRuns = 600, kWindows = 5;
  int fair = 0;
  for (int window = 0; window < kWindows; ++window) {
    std::atomic<int> ready{0}, total{0};
    std::atomic<int> asked[2] = {0, 0}, begun[2] = {0, 0};  // runs of each caller
    int runs[2] = {0, 0}, overtook[2] = {0, 0};             // of each: counted, and begun before one asked for earlier
    std::vector<std::thread> callers;
    for (const int me : {0, 1})
      callers.emplace_back([&, me] {
        const int other = 1 - me;
        for (++ready; total < kRuns;) {
          const int wait = asked[other];
          ++asked[me];
          pool.run([&](const Team& team) {
            if (team.rank == 0) {
              ++begun[me];
              if (begun[other] < wait) ++overtook[me];
            }
            for (volatile int spin = 0; spin < 20'000;) spin = spin + 1;
          });
          if (ready == 2) ++runs[me], ++total;  // both are in their loops
        }
      });
    for (std::thread& caller : callers) caller.join();
    std::printf("two callers: %d and %d runs, of which %d and %d overtook\n", runs[0], runs[1], overtook[0],
                overtook[1]);
    fair += std::min(runs[0], runs[1]) >= kRuns / 4 && overtook[0] + overtook[1] <= kRuns / 20;
  }
  CHECK(fair >= 1);
}

TEST(random_work_adds_up) {
  std::mt19937 rng(std::random_device{}());
  ThreadPool pool(1 + int(rng() % 5));
  for (int round = 0; round < 100; ++round) {
    const int64_t n = rng() % 1000, grain = 1 + rng() % 17;
    std::vector<int> hit(n);
    pool.run([&](const Team& team) {
      const auto [begin, end] = team.share(n, grain);
      for (int64_t i = begin; i < end; ++i) ++hit[i];
    });
    bool once = true;
    for (const int h : hit) once &= h == 1;
    CHECK(once);
  }
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_forked_child_is_told_so) {
  ThreadPool pool(2);
  const pid_t child = fork();
  if (child == 0) {
    try {
      pool.run([](const Team&) {});
    } catch (const std::logic_error&) {
      _exit(42);
    }
    _exit(1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
}
#endif

CHECK_MAIN()
