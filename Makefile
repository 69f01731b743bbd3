# Everything a newcomer needs is `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BUILD  ?= build/cmake
JOBS   ?= $(shell nproc)
# What the tests compare with. CPU builds of torch suffice; say TORCH="torch==2.13.0 --index-url ..." for another source.
TORCH  ?= torch==2.13.0
# What the URDF reader is compared with. Its optional parts (meshes, viewers) would bring hundreds of megabytes.
URDF_ORACLE = yourdfpy==0.0.60 trimesh lxml six
LINTERS ?= ruff==0.17.6 clang-format==18.1.8
PYTEST_ARGS ?=
DEMO_ARGS ?=

export PYTHON
export CMAKE_BUILD_PARALLEL_LEVEL = $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
ifneq ($(shell which ccache 2>/dev/null),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

# A change in any of these reinstalls the package; folders are listed so that removed files count too.
SOURCES := $(shell find bench csrc kernels cmake python -not -path '*/__pycache__*' -not -name '*.so') \
  CMakeLists.txt pyproject.toml README.md
CXX_FILES = $(shell git ls-files 'csrc/**.h' 'csrc/**.cpp' 'kernels/**.h' 'kernels/**.cpp' 'kernels/**.cuh' \
  'kernels/**.cu' 'tests/**.h' 'tests/**.cpp' \
  'examples/**.cpp' 'python/**.cpp')

.PHONY: help demo test benchmark build-cpp sanitize aarch64 cuda cuda-checked lint format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.sim  ## install, then drive the simulated arm with the bundled model
	$(BIN)/wamcore run --headless $(DEMO_ARGS)

test: lint $(VENV)/.test build-cpp  ## everything: style, C++ and Python tests
	WAMCORE_BUILD_DIR=$(abspath $(BUILD)) $(BIN)/python -m pytest $(PYTEST_ARGS)

build-cpp: $(VENV)/.ready  ## the library and its C++ tests by plain CMake, in $(BUILD)
	cmake -S . -B $(BUILD) -G Ninja -DWAMCORE_BUILD_TESTS=ON -DWAMCORE_CUDA=OFF
	cmake --build $(BUILD) --target all all_verify_interface_header_sets

# -O1 keeps assertions and readable traces. Threads are checked apart: the two kinds of sanitizer exclude each other.
SANITIZE = cmake -S . -G Ninja -DWAMCORE_BUILD_TESTS=ON -DBUILD_SHARED_LIBS=OFF -DWAMCORE_CUDA=OFF \
  -DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_CXX_FLAGS_SANITIZE=-O1
sanitize: $(VENV)/.ready  ## the C++ tests under ASan and UBSan, the threaded ones under TSan
	$(SANITIZE) -B build/asan -DWAMCORE_SANITIZE=address,undefined
	cmake --build build/asan --target wamcore_tests
	ctest --test-dir build/asan --output-on-failure
	$(SANITIZE) -B build/tsan -DWAMCORE_SANITIZE=thread
	cmake --build build/tsan --target wamcore_threaded_tests
	ctest --test-dir build/tsan --output-on-failure -L threads

# CPU seconds of two cores in 7 minutes.
AARCH64_BUDGET ?= 840
aarch64: $(VENV)/.ready  ## the library for 64-bit ARM: cross-compiled, its kernels' tests under qemu
	$(BIN)/python scripts/budget.py $(AARCH64_BUDGET) bash scripts/aarch64.sh build/aarch64

cuda: $(VENV)/.cuda  ## the CUDA plugin without a GPU: compile, simulate the kernels, check what the compiler made of them
	$(BIN)/python scripts/budget.py $(CUDA_BUDGET) $(MAKE) cuda-checked

# CPU seconds of two cores in 15 minutes. The same build folder as the tests', so that only CUDA is added to it.
CUDA_BUDGET ?= 1800
CUDA_ARCHS ?= 80;89;90
cuda-checked:
	cmake -S . -B $(BUILD) -G Ninja -DWAMCORE_BUILD_TESTS=ON -DWAMCORE_CUDA=ON -DWAMCORE_CUDA_REAL="$(CUDA_ARCHS)" \
	  -DPython_EXECUTABLE=$(BIN)/python
	cmake --build $(BUILD) --target wamcore_cuda device_check wamcore_simt_tests test_cuda_probe \
	  test_cuda_math
	ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -R '^(simt|cuda)_'
	$(BIN)/python scripts/cuda_resources.py $(BUILD)/csrc/libwamcore_cuda.so kernels/cuda/resources.json

# Not named bench: that is a folder, and one of the sources.
benchmark: $(VENV)/.test  ## kernels, layers and chunks on this CPU beside torch; see `wamcore bench --help`
	for what in $(BENCHES); do $(BIN)/wamcore bench $$what --device $(BENCH_DEVICE) $(BENCH_ARGS) || exit; done
BENCHES ?= limits attention gemm elementwise layer forward chunk
BENCH_DEVICE ?= cpu
BENCH_ARGS ?=

lint: $(VENV)/.lint  ## style of Python and C++
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "clang-format --dry-run --Werror of $(words $(CXX_FILES)) files, as git lists them"
	@$(if $(CXX_FILES),$(BIN)/clang-format --dry-run --Werror $(CXX_FILES),true)

format: $(VENV)/.lint  ## rewrite Python and C++ in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:  ## remove the environment and all builds
	rm -rf $(VENV) build

# Stamps: each file says that a step is done and newer than what it was made from.
$(VENV)/.ready: scripts/system_packages.sh scripts/make_venv.sh pyproject.toml
	bash scripts/system_packages.sh build
	bash scripts/make_venv.sh $(VENV)
	touch $@

$(VENV)/.sim: $(VENV)/.ready $(SOURCES)
	bash scripts/system_packages.sh render
	$(BIN)/python scripts/install.py sim
	touch $@

# torch goes first, alone, so that nothing else chooses its build.
$(VENV)/.torch: $(VENV)/.ready
	$(BIN)/python -m pip install $(TORCH)
	touch $@

$(VENV)/.test: $(VENV)/.torch $(SOURCES)
	bash scripts/system_packages.sh render test
	$(BIN)/python scripts/install.py sim,test
	$(BIN)/python -m pip install --no-deps $(URDF_ORACLE)
	touch $(VENV)/.sim $@

$(VENV)/.cuda: $(VENV)/.ready scripts/cuda_tools.sh
	bash scripts/cuda_tools.sh $(VENV)
	touch $@

$(VENV)/.lint: $(VENV)/.ready
	$(BIN)/python -m pip install $(LINTERS)
	touch $@
