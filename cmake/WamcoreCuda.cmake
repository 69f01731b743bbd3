# Turns WAMCORE_CUDA (AUTO, ON or OFF) into WAMCORE_HAS_CUDA. AUTO builds the backend where a compiler is found and never
# fails; ON fails with what is missing.
set(WAMCORE_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE WAMCORE_CUDA PROPERTY STRINGS AUTO ON OFF)
# Machine code of the kernels that use mma.sync or nothing special: all from one virtual architecture, compute_80, so
# that each file goes through the compiler's front end once. Its PTX is included for GPUs that are not named here.
set(WAMCORE_CUDA_REAL "80;89;90" CACHE STRING "Real architectures made of compute_80, and of compute_89 from 89 on")
# Kernels that need wgmma and TMA exist for this one only; they lie in files named *_sm90.cu.
option(WAMCORE_CUDA_SM90A "Build the kernels for sm_90a" ON)

set(WAMCORE_HAS_CUDA OFF)
if(NOT WAMCORE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "WAMCORE_CUDA must be AUTO, ON or OFF, got '${WAMCORE_CUDA}'")
endif()
if(WAMCORE_CUDA STREQUAL "OFF")
  return()
endif()

# Says why there will be no CUDA backend; the caller returns.
function(wamcore_no_cuda why)
  if(WAMCORE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "WAMCORE_CUDA=ON, but ${why}")
  endif()
  message(STATUS "wamcore: no CUDA backend: ${why}")
endfunction()

if(NOT BUILD_SHARED_LIBS OR WAMCORE_SANITIZE)
  wamcore_no_cuda("the plugin needs libwamcore as a shared library without sanitizers.")
  return()
endif()

# The folder of an importable Python package, or empty.
function(wamcore_python_package package result)
  set(${result} "" PARENT_SCOPE)
  if(NOT Python_EXECUTABLE)
    find_program(Python_EXECUTABLE NAMES python3 python)
  endif()
  if(Python_EXECUTABLE)
    execute_process(COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; print(list(u.find_spec('${package}').submodule_search_locations)[0])"
      OUTPUT_VARIABLE _dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _failed)
    if(NOT _failed)
      set(${result} ${_dir} PARENT_SCOPE)
    endif()
  endif()
endfunction()

# The compiler: as told, of the system, or of the nvidia-cuda-nvcc package.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(WAMCORE_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT WAMCORE_NVCC)
    wamcore_python_package(nvidia.cu13 _cu13)
    if(EXISTS "${_cu13}/bin/nvcc")
      set(WAMCORE_NVCC ${_cu13}/bin/nvcc CACHE FILEPATH "" FORCE)
      # The package puts the libraries where nvcc does not look for them.
      if(NOT EXISTS "${_cu13}/lib64")
        file(CREATE_LINK lib "${_cu13}/lib64" SYMBOLIC)
      endif()
      # FindCUDAToolkit wants the shared runtime, which nobody links, under a name without a version.
      file(GLOB _cudart "${_cu13}/lib/libcudart.so.*")
      if(_cudart)
        list(GET _cudart 0 _cudart)
        set(CUDA_CUDART ${_cudart} CACHE FILEPATH "")
      endif()
    endif()
  endif()
  if(WAMCORE_NVCC)
    set(CMAKE_CUDA_COMPILER ${WAMCORE_NVCC})
  endif()
endif()
# Never "native": the machine that builds need not have a GPU. The targets below say their architectures themselves.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80)
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  wamcore_no_cuda("no CUDA compiler was found: set CUDACXX or CUDA_HOME, or pip install the packages in pyproject.toml.")
  return()
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(CUDAToolkit_VERSION VERSION_LESS 13.0)
  wamcore_no_cuda("CUDA ${CUDAToolkit_VERSION} is too old: 13.0 or newer is wanted.")
  return()
endif()
set(WAMCORE_HAS_CUDA ON)
set(WAMCORE_CUDA_FOUND TRUE)  # for find_package(wamcore COMPONENTS cuda)

# wamcore_cuda_kernels(target [VIRTUAL 89] [SM90A] FILES ...): kernels as objects of the plugin. VIRTUAL is what they are
# compiled for, 80 unless told: code of every real architecture from that on and the PTX, out of one run of the front end.
function(wamcore_cuda_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SM90A" "VIRTUAL" "FILES")
  add_library(${target} OBJECT ${arg_FILES})
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES OFF CUDA_VISIBILITY_PRESET hidden
    POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/kernels/include ${PROJECT_SOURCE_DIR}/kernels)
  if(arg_SM90A)
    set(_gencode "-gencode=arch=compute_90a,code=sm_90a")
  else()
    if(NOT arg_VIRTUAL)
      set(arg_VIRTUAL 80)
    endif()
    set(_code compute_${arg_VIRTUAL})
    foreach(_real IN LISTS WAMCORE_CUDA_REAL)
      if(NOT _real LESS arg_VIRTUAL)
        list(APPEND _code sm_${_real})
      endif()
    endforeach()
    list(JOIN _code "," _code)
    set(_gencode "-gencode=arch=compute_${arg_VIRTUAL},code=[${_code}]")
  endif()
  # CMake 3.25 does not know how to ask this compiler for C++20.
  target_compile_options(${target} PRIVATE -std=c++20 --expt-relaxed-constexpr -lineinfo ${_gencode})
endfunction()
message(STATUS "wamcore: CUDA ${CUDAToolkit_VERSION} for sm_${WAMCORE_CUDA_REAL}, sm_90a kernels ${WAMCORE_CUDA_SM90A}")
