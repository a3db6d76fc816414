# What an installation holds: the command, both libraries, their headers, the plugins, and the CMake package.
include(CMakePackageConfigHelpers)

install(TARGETS qmill_sdk qmill_core EXPORT qmillTargets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY sdk/include/ core/include/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS qmill_command RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
if(QMILL_INSTALL_ALIAS)
  install(CODE "file(CREATE_LINK qmill \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/convert_to_quant\" SYMBOLIC)")
endif()

install(CODE "
  set(command \"$<TARGET_FILE:qmill_command>\")
  set(made \"${CMAKE_BINARY_DIR}/share\")
  set(datadir \"${CMAKE_INSTALL_DATADIR}\")")
install(SCRIPT cmake/install_pages.cmake)

set(_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/qmill")
install(EXPORT qmillTargets NAMESPACE qmill:: DESTINATION "${_package_dir}")
export(EXPORT qmillTargets NAMESPACE qmill:: FILE "${CMAKE_BINARY_DIR}/qmillTargets.cmake")
configure_package_config_file(cmake/qmillConfig.cmake.in "${CMAKE_BINARY_DIR}/qmillConfig.cmake" INSTALL_DESTINATION "${_package_dir}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/qmillConfigVersion.cmake" COMPATIBILITY SameMajorVersion)
set(_package_files cmake/FindLibTorch.cmake cmake/QmillAddPlugin.cmake cmake/plugin.map)
install(FILES "${CMAKE_BINARY_DIR}/qmillConfig.cmake" "${CMAKE_BINARY_DIR}/qmillConfigVersion.cmake" ${_package_files}
  DESTINATION "${_package_dir}")
# The build tree is a package too.
foreach(_file IN LISTS _package_files)
  configure_file("${_file}" "${CMAKE_BINARY_DIR}" COPYONLY)
endforeach()
