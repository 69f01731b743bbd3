#pragma once

// A test framework in one page: TEST(name) { CHECK(...); } registers itself; main() runs all and reports.
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*body)();
};
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline int& failures() {
  static int count = 0;
  return count;
}
struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};
inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  std::printf("%s:%d: %s\n", file, line, what.c_str());
}
/// max|a-b| / max|b|, the project's measure of parity. `least` stands in for max|b| where that may be small by chance,
/// as a single sum of random products may be.
template <typename A, typename B>
double relative_error(const A& a, const B& b, size_t n, double least = 1e-12) {
  double diff = 0, top = least;
  for (size_t i = 0; i < n; ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    diff = d > diff || d != d ? d : diff;
    top = std::max(top, std::abs(double(b[i])));
  }
  return diff / top;
}
inline int run() {
  for (const Test& test : tests()) {
    const int before = failures();
    try {
      test.body();
    } catch (const std::exception& e) {
      fail(test.name, 0, std::string("unexpected exception: ") + e.what());
    }
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
  }
  std::printf("%zu tests, %d failures\n", tests().size(), failures());
  return failures() != 0;
}

}  // namespace check

#define TEST(name)                                            \
  static void test_##name();                                  \
  static check::Register register_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (0)
#define CHECK_NEAR(a, b, tolerance)                                                                        \
  do {                                                                                                     \
    const double a_ = (a), b_ = (b);                                                                       \
    if (!(std::abs(a_ - b_) <= (tolerance)))                                                               \
      check::fail(__FILE__, __LINE__, #a " = " + std::to_string(a_) + ", " #b " = " + std::to_string(b_)); \
  } while (0)
/// The statement throws `Type`, and its message contains `text`.
#define CHECK_THROWS(statement, Type, text)                                                        \
  do {                                                                                             \
    try {                                                                                          \
      statement;                                                                                   \
      check::fail(__FILE__, __LINE__, #statement " did not throw");                                \
    } catch (const Type& e) {                                                                      \
      if (std::string(e.what()).find(text) == std::string::npos)                                   \
        check::fail(__FILE__, __LINE__, std::string("message lacks '") + text + "': " + e.what()); \
    }                                                                                              \
  } while (0)
#define CHECK_MAIN() \
  int main() { return check::run(); }
