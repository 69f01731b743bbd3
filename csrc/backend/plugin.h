#pragma once

namespace wam {

class Backend;
struct CudaKernels;

/// Changes with everything that a plugin and the library must agree on: this struct, Backend, and what they mention.
inline constexpr int kBackendAbi = 4;

/// What libwamcore_cuda.so says about itself. Read before any of its other code runs.
struct BackendPlugin {
  int abi = kBackendAbi;          // first, so that every version can read it
  const char* version = nullptr;  // WAMCORE_VERSION of its build; must be the library's own
  int toolkit = 0;                // CUDA version it was built with, 1000 * major + 10 * minor
  const int* real = nullptr;      // [real_count] compute capabilities it has machine code for, 10 * major + minor
  int real_count = 0;
  int ptx = 0;         // oldest compute capability the driver can translate its PTX for; 0: it has none
  bool sm90a = false;  // has the kernels of wgmma and TMA, for 9.0 alone
  Backend* (*make)(int gpu, int threads) = nullptr;  // the caller owns it; throws DeviceError
  const CudaKernels* kernels = nullptr;              // single operations, see cuda_kernels.h
};

}  // namespace wam

/// The only symbol of a plugin. The number is that of the entry itself; the ABI number is inside.
extern "C" const wam::BackendPlugin* wam_backend_v1();
