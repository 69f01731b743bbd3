// Recorded cases of the release through the CUDA path on the simulated device: called by
// tests/python/test_golden_cuda.py with the recorded tensors, the weights (of a session: the checkpoint's folder) and
// what else is to be known.
//     simt_golden sequence|training|block|session CASE.safetensors WEIGHTS '{"dit": {...}, ...}'
// Prints one line a compared tensor: name, relative l2 error.
#include "golden.h"

int main(int argc, char** argv) try {
  const std::string kind = argc == 5 ? argv[1] : "";
  if (kind == "sequence") {
    golden_sequence::run_sequence(golden::simulated(), argv[2], argv[3], argv[4]);
    return 0;
  }
  const auto run = kind == "training"  ? golden::training
                   : kind == "block"   ? golden::block
                   : kind == "session" ? golden::session
                                       : nullptr;
  if (!run) {
    std::fprintf(stderr, "usage: simt_golden sequence|training|block|session CASE WEIGHTS CONFIG\n");
    return 2;
  }
  const wam::json::Value document = wam::json::parse(argv[4], "config");
  run(argv[2], argv[3], wam::json::Node(document, "config").fields());
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
