// What a user is told where the CUDA backend cannot be used: one sentence each, from a driver that plays every part.
#include <cstdlib>

#include "backend/backend.h"
#include "backend/cuda_loader.h"
#include "check.h"
#include "wamcore/error.h"
#include "wamcore/version.h"

using namespace wam;

namespace {

constexpr int kReal[] = {80, 89, 90};
BackendPlugin plugin() {
  return {.version = WAMCORE_VERSION, .toolkit = 13000, .real = kReal, .real_count = 3, .ptx = 80};
}

// The problem that a driver with these answers leads to.
std::string problem(const char* answers, BackendPlugin p = plugin(), int ordinal = 0) {
  setenv("WAMCORE_FAKE_DRIVER", answers, 1);
  return why_not(p, ask_driver(ordinal, WAMCORE_FAKE_DRIVER_FILE), ordinal);
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
bool one_sentence(const std::string& text) {
  return !text.empty() && text.back() == '.' && text.find(". ") == std::string::npos && !has(text, "\n");
}

}  // namespace

TEST(a_good_machine_has_no_problem) {
  CHECK(problem("0 13000 1 90").empty());
  CHECK(problem("0 13020 2 80").empty());
  CHECK(problem("0 13000 1 86").empty());   // code for 8.0 runs on it
  CHECK(problem("0 14010 1 120").empty());  // newer than anything named: PTX
  const GpuFacts facts = ask_driver(0, WAMCORE_FAKE_DRIVER_FILE);
  CHECK(facts.name == "Test GPU" && facts.capability == 120 && facts.memory_bytes == size_t{16} << 30);
}

TEST(every_problem_is_one_sentence_that_names_it) {
  const auto said = [](const std::string& text, const char* part) {
    if (!one_sentence(text) || !has(text, part)) std::printf("  '%s' lacks '%s'\n", text.c_str(), part);
    return one_sentence(text) && has(text, part);
  };
  CHECK(said(why_not(plugin(), ask_driver(0, "libno_such_driver.so"), 0), "no NVIDIA driver"));
  CHECK(said(problem("0 12090 1 90"), "supports CUDA 12.9, this build wants 13.0"));
  CHECK(said(problem("0 13000 1 75"), "Test GPU has compute capability 7.5"));
  CHECK(said(problem("0 13000 0 0"), "shows no GPU"));
  CHECK(said(problem("100 13000 0 0"), "shows no GPU"));  // cuInit's way of saying so
  CHECK(said(problem("999 13000 1 90"), "error 999"));
  CHECK(said(problem("0 13000 2 90", plugin(), 2), "no GPU 2"));
}

TEST(the_way_of_fp8_is_told) {
  BackendPlugin p = plugin();
  const auto path = [&](const char* answers) {
    CHECK(problem(answers, p).empty());
    return fp8_path(p, ask_driver(0, WAMCORE_FAKE_DRIVER_FILE));
  };
  p.sm90a = true;
  unsetenv("WAMCORE_CUDA_KERNELS");
  CHECK(path("0 13000 1 90") == "fp8 by wgmma (sm_90a)");
  CHECK(path("0 13000 1 110") == "fp8 by mma.sync (sm_89), emulated on 11.0");
  CHECK(path("0 13000 1 100") == "fp8 by mma.sync (sm_89), emulated on 10.0");
  for (const char* later : {"0 13000 1 89", "0 13000 1 120"}) CHECK(path(later) == "fp8 by mma.sync (sm_89)");
  for (const char* older : {"0 13000 1 80", "0 13000 1 86", "0 13000 1 87"})
    CHECK(has(path(older), "no fp8") && has(path(older), "8.9, this is 8."));
  setenv("WAMCORE_CUDA_KERNELS", "sm80", 1);
  CHECK(has(path("0 13000 1 90"), "mma.sync") && has(path("0 13000 1 90"), "WAMCORE_CUDA_KERNELS is sm80"));
  unsetenv("WAMCORE_CUDA_KERNELS");
  p.sm90a = false;
  CHECK(has(path("0 13000 1 90"), "mma.sync") && has(path("0 13000 1 90"), "no kernels for sm_90a"));
}

TEST(machine_code_alone_limits_the_gpus) {
  BackendPlugin no_ptx = plugin();
  no_ptx.ptx = 0;
  CHECK(problem("0 13000 1 89", no_ptx).empty());
  CHECK(has(problem("0 13000 1 120", no_ptx), "12.0"));
  CHECK(has(problem("0 13000 1 87", no_ptx), "8.7") == false);  // 8.0 code runs on 8.7
}

TEST(plugins_of_other_builds_are_refused) {
  CHECK(why_not(plugin()).empty());
  BackendPlugin other = plugin();
  other.abi = kBackendAbi + 1;
  CHECK(has(why_not(other), "ABI"));
  other = plugin(), other.version = "0.0.9";
  CHECK(has(why_not(other), "0.0.9"));
}

TEST(without_a_plugin_auto_means_cpu_and_cuda_says_why) {
  CHECK(!cuda_state().problem.empty());
  CHECK(one_sentence(cuda_state().problem));
  CHECK(make_backend("auto", 1)->name() == "cpu");
  CHECK_THROWS(make_backend("cuda", 1), DeviceError, "no CUDA plugin");
  CHECK_THROWS(make_backend("cuda:1", 1), DeviceError, "cuda:1");
  for (const char* bad : {"cuda:", "cuda:x", "cuda:123", "cudaa", "gpu"})
    CHECK_THROWS(make_backend(bad, 1), DeviceError, "device must be");
}

CHECK_MAIN()
