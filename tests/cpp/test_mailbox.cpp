// Hand-offs between threads: no torn value, no order lost, nothing executed twice. Meant to run under ThreadSanitizer.
#include <array>
#include <thread>

#include "check.h"
#include "core/mailbox.h"
#include "core/spsc_ring.h"
#include "fresh.h"
#include "runtime/waypoints.h"

using namespace wam;

TEST(mailbox_keeps_the_newest_value) {
  Mailbox<int> box(7);
  CHECK(!box.fetch());
  for (int value = 1; value <= 3; ++value) {
    box.draft() = value;
    box.publish();
  }
  CHECK(box.fetch());
  CHECK(box.latest() == 3);
  CHECK(!box.fetch());
  CHECK(box.latest() == 3);
}

TEST(mailbox_model) {
  // Any interleaving of whole operations: the reader sees the newest published value, and each of them at most once.
  for (int round = 0; round < 200; ++round) {
    Mailbox<int> box(0);
    int published = 0, seen = 0;
    for (int k = 0; k < 200; ++k) {
      if (check::integer(0, 1)) {
        box.draft() = ++published;
        box.publish();
      } else {
        const bool fresh = box.fetch();
        CHECK(fresh == (published != seen));
        CHECK(box.latest() == published);
        seen = published;
      }
    }
  }
}

TEST(mailbox_never_tears_a_value) {
  using Block = std::array<uint64_t, 64>;
  Mailbox<Block> box;
  constexpr uint64_t kLast = 200'000;
  std::thread writer([&] {
    for (uint64_t i = 1; i <= kLast; ++i) {
      box.draft().fill(i);
      box.publish();
    }
  });
  uint64_t seen = 0, torn = 0, backwards = 0;
  while (seen != kLast) {
    if (!box.fetch()) {
      std::this_thread::yield();  // on one busy core the other thread would else wait for the end of a time slice
      continue;
    }
    const Block& block = box.latest();
    for (const uint64_t v : block) torn += v != block[0];
    backwards += block[0] <= seen;
    seen = block[0];
  }
  writer.join();
  CHECK(torn == 0);
  CHECK(backwards == 0);
}

TEST(ring_is_first_in_first_out_and_bounded) {
  SpscRing<int, 3> ring;
  CHECK(!ring.pop());
  CHECK(ring.push(1) && ring.push(2) && ring.push(3));
  CHECK(!ring.push(4));
  CHECK(ring.pop() == 1);
  CHECK(ring.push(5));
  CHECK(ring.pop() == 2 && ring.pop() == 3 && ring.pop() == 5 && !ring.pop());
}

TEST(ring_loses_and_doubles_nothing_between_threads) {
  SpscRing<uint64_t, 8> ring;
  constexpr uint64_t kLast = 60'000;
  std::thread producer([&] {
    for (uint64_t i = 1; i <= kLast;)
      if (ring.push(i))
        ++i;
      else
        std::this_thread::yield();
  });
  uint64_t expected = 1, wrong = 0;
  while (expected <= kLast)
    if (const auto value = ring.pop())
      wrong += *value != expected++;
    else
      std::this_thread::yield();
  producer.join();
  CHECK(wrong == 0);
}

TEST(waypoints_are_not_changed_while_they_are_executed) {
  WaypointQueue queue;
  constexpr uint64_t kLast = 10'000;
  std::thread inference([&] {
    for (uint64_t i = 1; i <= kLast;) {
      Waypoints* slot = queue.borrow();
      if (!slot) {
        std::this_thread::yield();
        continue;
      }
      slot->chunk.sequence = i++;
      slot->chunk.q.assign(32, static_cast<double>(slot->chunk.sequence));
      queue.send(slot);
    }
  });
  Waypoints* current = nullptr;
  uint64_t wrong = 0, last = 0;
  while (last != kLast) {
    if (Waypoints* next = queue.take()) {
      wrong += next->chunk.sequence != last + 1;
      last = next->chunk.sequence;
      if (current) queue.give_back(current);
      current = next;
      queue.decided();
    } else {
      std::this_thread::yield();
    }
    if (current)
      for (const double q : current->chunk.q) wrong += q != static_cast<double>(current->chunk.sequence);
  }
  inference.join();
  CHECK(wrong == 0);
  CHECK(queue.sent_count() == kLast && queue.decided_count() == kLast);
}

CHECK_MAIN()
