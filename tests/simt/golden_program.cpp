// A recorded sequence of the release through the CUDA path on the simulated device: called by
// tests/python/test_golden_cuda.py with the recorded tensors, the weights and their configuration.
//     simt_golden CASE.safetensors WEIGHTS.safetensors '{"dit": {...}, "timesteps": [[video, action], ...]}'
// Prints one line a compared tensor: name, relative l2 error.
#include "backend/cuda/backend.h"
#include "device/golden_sequence.h"
#include "sim_device.h"

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::fprintf(stderr, "usage: simt_golden CASE WEIGHTS CONFIG\n");
    return 2;
  }
  auto backend =
      std::make_shared<wam::cuda::CudaBackend>(std::make_shared<sim::SimDevice>(), wam::make_backend("cpu", 1));
  golden_sequence::run_sequence(backend, argv[1], argv[2], argv[3]);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
