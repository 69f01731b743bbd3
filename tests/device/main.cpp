// The C++ half of bench/device_check: kernels and programs on GPU 0 against their definitions. One line of JSON a row,
// as soon as it is known; bench/device_check.py makes the table and starts this again where a row took the device with
// it.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <mutex>
#include <random>
#include <thread>

#include "backend/cuda/backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda_probe.h"
#include "checks.h"
#include "golden_sequence.h"
#include "gpu_rig.h"
#include "small_models.h"

using namespace device_check;

namespace {

constexpr const char* kUsage =
    "usage: device_check gpu\n"
    "       device_check kernels|programs [--tiny] [--from ROW] [--only WORDS] [--seed N] [--json FILE] [--list]\n"
    "       device_check golden CASE WEIGHTS CONFIG\n"
    "Exit status: 0 all rows passed, 1 a row failed, 2 wrong arguments, 3 the device is lost, 4 a row hung.\n";
constexpr int kFailed = 1, kUsageError = 2, kLost = 3, kHung = 4;

struct Options {
  std::string mode, only, json;
  size_t from = 0;
  uint64_t seed = std::random_device{}();
  Sizes sizes = Sizes::large;
  bool list = false;  // say what there is, and run nothing
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + '"';
}
std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", v);
  return std::isfinite(v) ? text : "null";
}

/// Since when the device has been waited for, in nanoseconds of the steady clock; 0: the host is computing.
std::atomic<int64_t> device_since{0};

int64_t nanoseconds() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

/// While one lives, the device is waited for.
class OnDevice {
 public:
  OnDevice() { device_since = nanoseconds(); }
  ~OnDevice() { device_since = 0; }
};

/// A rig whose every call is a wait for the device.
class WatchedRig final : public Rig {
 public:
  explicit WatchedRig(std::unique_ptr<Rig> rig) : rig_(std::move(rig)) {}
  std::byte* allocate(size_t bytes) override {
    const OnDevice waiting;
    return rig_->allocate(bytes);
  }
  void release(std::byte* p) noexcept override {
    const OnDevice waiting;
    rig_->release(p);
  }
  void upload(std::byte* to, const void* from, size_t bytes) override {
    const OnDevice waiting;
    rig_->upload(to, from, bytes);
  }
  void download(void* to, const std::byte* from, size_t bytes) override {
    const OnDevice waiting;
    rig_->download(to, from, bytes);
  }
  void start(const Work& work) override {
    const OnDevice waiting;
    rig_->start(work);
  }
  bool has_sm90() const override { return rig_->has_sm90(); }
  bool has_fp8() const override { return rig_->has_fp8(); }
  int multiprocessors() const override { return rig_->multiprocessors(); }

 private:
  std::unique_ptr<Rig> rig_;
};

/// Says what came of each row, and ends the process where the device takes too long: a kernel that waits for ever
/// cannot be stopped otherwise. The host's own work, data and references, has a longer patience of its own.
class Report {
 public:
  explicit Report(const Options& o) : options_(o) {
    if (!o.json.empty()) file_.open(o.json, std::ios::app);
    watch_ = std::jthread([this](std::stop_token stop) { watch(stop); });
  }
  void begin(size_t index, const Row& row) {
    const std::lock_guard lock(mutex_);
    index_ = index, row_ = row, began_ = Clock::now(), busy_ = true;
  }
  void end(const Row& row) {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    row_ = row;
    write();
  }
  bool failed() const { return failed_; }

 private:
  using Clock = std::chrono::steady_clock;
  // s in one call of the device; the sanitizers, who see tiny sizes, are slow
  double patience() const { return options_.sizes == Sizes::tiny ? 60 : 20; }
  static constexpr double kRowPatience = 120;  // s for a row in all

  // Why the row at hand takes too long, or nothing.
  const char* overdue(double seconds) const {
    const int64_t since = device_since;
    if (since && static_cast<double>(nanoseconds() - since) * 1e-9 > patience()) return "hangs";
    return seconds > kRowPatience ? "takes too long on the host" : nullptr;
  }

  void write() {
    failed_ = failed_ || row_.verdict == "FAILED";
    std::string line = "{\"index\": " + std::to_string(index_) + ", \"seed\": " + std::to_string(options_.seed) +
                       ", \"kernel\": " + quoted(row_.kernel) + ", \"shape\": " + quoted(row_.shape) +
                       ", \"error\": " + number(row_.error) + ", \"tolerance\": " + number(row_.tolerance) +
                       ", \"worst\": " + number(row_.worst) + ", \"verdict\": " + quoted(row_.verdict) +
                       ", \"why\": " + quoted(row_.why) + ", \"seconds\": " + number(row_.seconds) + "}";
    std::cout << line << std::endl;
    if (file_.is_open()) file_ << line << std::endl;
  }
  void watch(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const std::lock_guard lock(mutex_);
      const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
      const char* const why = busy_ ? overdue(seconds) : nullptr;
      if (!why) continue;
      row_.verdict = "FAILED", row_.why = why, row_.seconds = seconds, row_.error = row_.worst = std::nan("");
      write();
      std::_Exit(kHung);
    }
  }

  const Options& options_;
  std::ofstream file_;
  std::mutex mutex_;
  size_t index_ = 0;
  Row row_;
  Clock::time_point began_ = Clock::now();
  bool busy_ = false, failed_ = false;
  std::jthread watch_;  // last: it uses all the others
};

std::shared_ptr<wam::Backend> gpu_backend() {
  return std::make_shared<wam::cuda::CudaBackend>(wam::cuda::open_device(0), wam::make_backend("cpu", {}));
}

/// Prefill and denoise of small random models, on the GPU and through the CPU's plain loop over operations.
std::vector<Check> program_checks(Sizes sizes) {
  std::vector<Check> out;
  const auto add = [&](const small_models::Size& s, double tolerance, wam::Precision precision) {
    const std::string shape = std::to_string(s.layers) + " layers, " + std::to_string(s.heads) + "x" +
                              std::to_string(s.head_dim) + (s.clip ? ", image tokens" : "") + ", latents " +
                              std::to_string(s.height) + "x" + std::to_string(s.width);
    out.push_back({.kernel = precision == wam::Precision::fp8 ? "programs, fp8" : "programs",
                   .shape = shape,
                   .tolerance = tolerance,
                   .fp8 = precision == wam::Precision::fp8,
                   .run = [s, precision](Rig&, Fresh& fresh) {
                     const wam::DitConfig c = small_models::config(s);
                     const small_models::Inputs in(c, s, unsigned(fresh.under(1u << 30)));
                     const auto want = small_models::run(wam::make_backend("cpu-ops", {}), c, s, in);
                     const auto got = [&] {
                       const OnDevice waiting;
                       return small_models::run(gpu_backend(), c, s, in, 3, precision);
                     }();
                     double error = 0;
                     for (const double e :
                          {small_models::distance(got.video, want.video),
                           small_models::distance(got.action, want.action), small_models::distance(got.keys, want.keys),
                           small_models::distance(got.values, want.values)})
                       error = e > error || e != e ? e : error;
                     return Distance{error, 0};
                   }});
  };
  // as on the simulated machine for two layers; more layers round more often
  using enum wam::Precision;
  add({false, 2, 64, 2}, 1.2e-2, bfloat16);
  add({true, 2, 24, 2}, 1.2e-2, bfloat16);
  add({true, 2, 64, 2}, 9e-2, fp8);
  if (sizes == Sizes::tiny) return out;
  add({true, 3, 6, 2}, 1.2e-2, bfloat16);
  add({false, 1, 128, 2}, 1.2e-2, bfloat16);
  add({true, 8, 128, 4, 12, 20}, 2.7e-2, bfloat16);
  add({false, 12, 64, 6, 22, 40}, 2.7e-2, bfloat16);
  add({true, 8, 128, 4, 12, 20}, 0.18, fp8);
  return out;
}

int run_rows(const Options& o) {
  const std::vector<Check> checks = o.mode == "programs" ? program_checks(o.sizes) : all_checks(o.sizes);
  if (o.list) {
    for (size_t i = o.from; i < checks.size(); ++i)
      std::cout << "{\"index\": " << i << ", \"kernel\": " << quoted(checks[i].kernel)
                << ", \"shape\": " << quoted(checks[i].shape) << "}\n";
    return 0;
  }
  WatchedRig rig(open_gpu());
  Report report(o);
  for (size_t i = o.from; i < checks.size(); ++i) {
    const Check& check = checks[i];
    if ((check.kernel + " " + check.shape).find(o.only) == std::string::npos) continue;
    report.begin(
        i, {.kernel = check.kernel, .shape = check.shape, .verdict = "", .why = "", .tolerance = check.tolerance});
    report.end(run_check(check, rig, o.seed + i));
    if (!gpu_is_well()) return kLost;
  }
  return report.failed() ? kFailed : 0;
}

Options options_of(int argc, char** argv) {
  Options o;
  o.mode = argc > 1 ? argv[1] : "";
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--tiny" || name == "--list") {
      if (name == "--tiny") o.sizes = Sizes::tiny;
      o.list = o.list || name == "--list";
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(name + " wants a value");
    const std::string value = argv[++i];
    if (name == "--from")
      o.from = std::stoull(value);
    else if (name == "--only")
      o.only = value;
    else if (name == "--seed")
      o.seed = std::stoull(value);
    else if (name == "--json")
      o.json = value;
    else
      throw std::invalid_argument("unknown option " + name);
  }
  return o;
}

int run(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "golden" && argc == 5) {
    golden_sequence::run_sequence(gpu_backend(), argv[2], argv[3], argv[4]);
    return 0;
  }
  if (mode == "gpu" && argc == 2) {
    const std::string why = wam::why_not(*wam_backend_v1(), wam::ask_driver(0), 0);
    std::cout << (why.empty() ? describe_gpu() : why) << std::endl;
    return why.empty() ? 0 : kLost;
  }
  if (mode == "kernels" || mode == "programs") return run_rows(options_of(argc, argv));
  std::cerr << kUsage;
  return kUsageError;
}

}  // namespace

int main(int argc, char** argv) try { return run(argc, argv); } catch (const std::invalid_argument& e) {
  std::cerr << "device_check: " << e.what() << "\n" << kUsage;
  return kUsageError;
} catch (const std::exception& e) {
  std::cerr << "device_check: " << e.what() << std::endl;
  return kLost;
}
