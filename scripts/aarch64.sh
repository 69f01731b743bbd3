#!/usr/bin/env bash
# Cross-compiles the library and a part of its C++ tests for 64-bit ARM and runs them under qemu: the kernels on every
# instruction set there is, on a CPU with all features and on an old one with NEON alone.
# usage: PYTHON=python3 aarch64.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
if ! bash scripts/system_packages.sh aarch64; then
  [ -z "${WAMCORE_REQUIRE_AARCH64:-}" ] || { echo "aarch64.sh: the cross compiler is wanted here" >&2; exit 1; }
  echo "aarch64.sh: skipped: without root nobody can install the cross compiler and qemu; see the line above"
  exit 0
fi
tests=(kernels frame_kernels tensor safetensors thread_pool mailbox flow backend vae interpolator)
cmake -S . -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DWAMCORE_BUILD_TESTS=ON -DWAMCORE_CUDA=OFF \
  -DBUILD_SHARED_LIBS=OFF
cmake --build "$build" --target "${tests[@]/#/test_}"
names=$(IFS='|'; echo "${tests[*]}")
ctest --test-dir "$build" --output-on-failure --no-tests=error -R "^($names)(_[a-z0-9_]+)?$"
echo "aarch64.sh: again on a CPU that has NEON and nothing newer"
QEMU_CPU=cortex-a53 ctest --test-dir "$build" --output-on-failure --no-tests=error -R '^(kernels|frame_kernels)'
