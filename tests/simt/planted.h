#pragma once

// Runs a piece of a test in a child process: some planted bugs end in a report of the address sanitizer, not in a
// Fault.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

/// What `body` wrote to standard error, and whether it ended by itself with exit code 0.
struct ChildResult {
  std::string text;
  bool clean = false;
  bool says(const char* words) const { return text.find(words) != std::string::npos; }
};

inline ChildResult run_in_child(const std::function<void()>& body) {
  int ends[2];
  if (pipe(ends)) return {"pipe() failed", false};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    try {
      body();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      _exit(3);
    }
    _exit(0);
  }
  close(ends[1]);
  ChildResult result;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) result.text.append(buffer, size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  result.clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return result;
}
