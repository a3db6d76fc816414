# Where things are built, and the flags that all targets of this project share.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

# Half of a file's time goes into parsing headers that the next one parses again.
set(CMAKE_UNITY_BUILD ${QMILL_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 20)

# Loops over elements are in few targets (qmill_optimize): for the others more optimization costs build time and gains nothing.
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")

add_library(qmill_flags INTERFACE)
target_compile_options(qmill_flags INTERFACE -Wall -Wextra -Wshadow $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # A product that is fused into a sum has other last bits, on some processors only.
  -ffp-contract=off)
if(QMILL_WARNINGS_ARE_ERRORS)
  target_compile_options(qmill_flags INTERFACE -Werror)
endif()
if(QMILL_SANITIZE)
  target_compile_options(qmill_flags INTERFACE -fsanitize=${QMILL_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(qmill_flags INTERFACE -fsanitize=${QMILL_SANITIZE})
endif()
if(QMILL_BUILD_FUZZERS AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # What libFuzzer sees of the code under test; its main is in the programs alone (tests/fuzz).
  target_compile_options(qmill_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Another level of optimization for a target of a release: 3 for loops over elements, 1 for what parses and prints.
function(qmill_optimize name level)
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O${level}>)
endfunction()

# Library or program of the project: shared flags, RPATHs for the built and the installed tree.
function(qmill_target name)
  target_link_libraries(${name} PRIVATE $<BUILD_INTERFACE:qmill_flags>)
  file(RELATIVE_PATH libraries "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/${libraries};${QMILL_TORCH_RPATH}")
endfunction()
