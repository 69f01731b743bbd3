// The pool: every rank runs once, barriers hold, errors come back, several callers share, nothing hangs.
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <numeric>
#include <random>

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
  CHECK(ThreadPool().size() == available_cpus() && available_cpus() >= 1);
  CHECK_THROWS(ThreadPool(-1), ConfigError, "got -1");
  CHECK_THROWS(ThreadPool(100000), ConfigError, "got 100000");
}

TEST(barriers_separate_phases) {
  ThreadPool pool(4);
  std::vector<int> left(4), right(4);
  bool ok = true;
  for (int round = 0; round < 50; ++round) {
    pool.run([&](const Team& team) {
      for (int phase = 1; phase <= 20; ++phase) {
        left[team.rank] = phase;
        team.sync();
        const int sum = std::accumulate(left.begin(), left.end(), 0);
        team.sync();
        right[team.rank] += sum == 4 * phase;
      }
    });
  }
  for (const int n : right) ok &= n == 50 * 20;
  CHECK(ok);
}

TEST(workers_asleep_wake_up) {
  ThreadPool pool(3);
  std::atomic<int> calls{0};
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // long past spinning and yielding
    pool.run([&](const Team& team) {
      if (team.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // the others sleep at the barrier
      team.sync();
      ++calls;
    });
  }
  CHECK(calls == 15);
}

TEST(an_exception_of_any_rank_reaches_the_caller) {
  for (const int size : {1, 4}) {
    ThreadPool pool(size);
    for (int thrower = 0; thrower < size; ++thrower) {
      CHECK_THROWS(pool.run([&](const Team& team) {
        if (team.rank == thrower) throw WeightError("rank " + std::to_string(thrower));
      }),
                   WeightError, "rank " + std::to_string(thrower));
      // the others wait at a barrier that the thrower never reaches, half of them asleep by then
      CHECK_THROWS(pool.run([&](const Team& team) {
        if (team.rank == thrower) {
          std::this_thread::sleep_for(std::chrono::milliseconds(thrower));
          throw ShapeError("before the barrier");
        }
        team.sync();
        team.sync();
      }),
                   ShapeError, "before the barrier");
      int ran = 0;
      pool.run([&](const Team& team) {
        team.sync();
        if (team.rank == 0) ran = 1;
      });
      CHECK(ran == 1);
    }
  }
}

TEST(a_barrier_that_not_all_reach_is_an_error_not_a_hang) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    CHECK_THROWS(pool.run([&](const Team& team) {
      if (team.rank != round % 3) team.sync();
    }),
                 std::logic_error, "barrier");
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
          if (team.rank == 0) alone &= ++inside == 1;
          team.sync();
          if (team.rank == 0) --inside, ++total;
        });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(alone && total == 300);
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
