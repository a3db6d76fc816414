# The command for several processes, where MPI is there. The plain command does not link it.
find_package(MPI QUIET COMPONENTS CXX)
find_package(Boost 1.74 QUIET COMPONENTS mpi)
if(NOT MPI_CXX_FOUND OR NOT Boost_mpi_FOUND)
  message(STATUS "No MPI (libopenmpi-dev, libboost-mpi-dev): qmill-mpi is not built")
  return()
endif()

set(MPIEXEC_EXECUTABLE "${MPIEXEC_EXECUTABLE}" PARENT_SCOPE)  # for tests

add_executable(qmill_mpi mpi_main.cpp mpi_peers.cpp)
qmill_target(qmill_mpi)
qmill_optimize(qmill_mpi 1)
set_target_properties(qmill_mpi PROPERTIES OUTPUT_NAME qmill-mpi)
target_link_libraries(qmill_mpi PRIVATE qmill_app Boost::mpi MPI::MPI_CXX qmill_fmt)
install(TARGETS qmill_mpi RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
