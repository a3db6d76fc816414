# LibTorch from a PyTorch installation or an unpacked LibTorch: the target LibTorch::LibTorch (headers, torch_cpu, c10).
#
# Looks in Torch_DIR and CMAKE_PREFIX_PATH, as TorchConfig.cmake would be found. That file itself is not used: with a CUDA
# build of PyTorch it asks for a CUDA toolkit, which nothing here needs.
set(_torch_hints "")
foreach(_path IN ITEMS "${Torch_DIR}" "$ENV{Torch_DIR}")
  if(_path)
    list(APPEND _torch_hints "${_path}/../../..")
  endif()
endforeach()
# torch.utils.cmake_prefix_path is <torch>/share/cmake.
foreach(_path IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _torch_hints "${_path}" "${_path}/../..")
endforeach()
string(REPLACE ":" ";" _torch_environment "$ENV{CMAKE_PREFIX_PATH}")
foreach(_path IN LISTS _torch_environment)
  list(APPEND _torch_hints "${_path}" "${_path}/../..")
endforeach()
# The Python that builds a wheel does not see the packages of its own environment: that is where torch is.
if(SKBUILD AND Python3_EXECUTABLE)
  execute_process(COMMAND "${Python3_EXECUTABLE}" -c
    "import site, sys, sysconfig
places = [sysconfig.get_path('platlib'), sysconfig.get_path('platlib', vars={'platbase': sys.base_prefix}), site.getusersitepackages()]
print(';'.join(place + '/torch' for place in places))"
    OUTPUT_VARIABLE _torch_places OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND _torch_hints ${_torch_places})
endif()

find_path(LibTorch_INCLUDE_DIR ATen/core/Tensor.h HINTS ${_torch_hints} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_torch_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_torch_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)

if(LibTorch_INCLUDE_DIR)
  set(_version_header "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
  if(NOT EXISTS "${_version_header}")
    set(_version_header "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h")
  endif()
  file(STRINGS "${_version_header}" _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" LibTorch_VERSION "${_version_lines}")
  file(GLOB _torch_config "${LibTorch_INCLUDE_DIR}/../share/cmake/Torch/TorchConfig.cmake")
  if(_torch_config)
    file(STRINGS "${_torch_config}" _old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    if(_old_abi)
      set(LibTorch_NOT_FOUND_MESSAGE "LibTorch ${LibTorch_VERSION} was built for the old C++ ABI, use 2.7 or newer")
      set(LibTorch_CPU_LIBRARY LibTorch_CPU_LIBRARY-NOTFOUND)
    endif()
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "${LibTorch_NOT_FOUND_MESSAGE} (set CMAKE_PREFIX_PATH to the torch.utils.cmake_prefix_path of your Python. Before `pip install`, install torch)")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${LibTorch_INCLUDE_DIR}" "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  target_link_libraries(LibTorch::LibTorch INTERFACE "${LibTorch_CPU_LIBRARY}" "${LibTorch_C10_LIBRARY}")
  get_filename_component(LibTorch_LIBRARY_DIR "${LibTorch_CPU_LIBRARY}" DIRECTORY)
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
