"""One line of progress: a bar on a terminal, a line now and then in a log."""

import sys
import time


class Progress:
    """Counts to `total`; `note` is shown behind the bar."""

    def __init__(self, name: str, total: int, done: int = 0):
        self.name, self.total, self.done, self.first = name, total, done, done
        self._start = self._shown = time.time()
        self._terminal = sys.stderr.isatty()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.time()
        if self.done < self.total and now - self._shown < (0.2 if self._terminal else 20):
            return
        self._shown = now
        rate = (self.done - self.first) / max(now - self._start, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        filled = 24 * self.done // max(self.total, 1)
        line = f"{self.name:>8} [{'#' * filled:<24}] {self.done}/{self.total} {left:5.0f} s left  {note}"
        end = "\r" if self._terminal and self.done < self.total else "\n"
        print(line, end=end, file=sys.stderr, flush=True)
