# qmill_add_plugin(name SOURCES file... [LIBRARIES target...])
#
# A plugin: libqmill_<name>.so that exports its descriptor and nothing else, links qmill::sdk, and is built to (and installed in)
# lib/qmill/plugins. For qmill's own plugins and for anybody's.
#
# qmill_add_filter_pack(name)
#
# Filters as data: <name>.json of the current folder, copied to (and installed in) the same place.
include(GNUInstallDirs)
set(_qmill_plugin_cmake_dir "${CMAKE_CURRENT_LIST_DIR}")

function(qmill_add_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  set(target qmill_${name})
  add_library(${target} MODULE ${ARG_SOURCES})
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_link_libraries(${target} PRIVATE qmill::sdk ${ARG_LIBRARIES})
  if(NOT MSVC)
    # The same bytes on every processor: no fused products.
    target_compile_options(${target} PRIVATE -ffp-contract=off)
  endif()
  set_target_properties(${target} PROPERTIES
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    INSTALL_RPATH "$ORIGIN/../.."  # the libraries, where the plugin is installed beside them
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib/qmill/plugins")
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${target} PRIVATE "-Wl,--version-script=${_qmill_plugin_cmake_dir}/plugin.map")
    if(NOT QMILL_SANITIZE)
      target_link_options(${target} PRIVATE -Wl,-z,defs)
    endif()
  endif()
  install(TARGETS ${target} LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/qmill/plugins")
endfunction()

function(qmill_add_filter_pack name)
  set(source "${CMAKE_CURRENT_SOURCE_DIR}/${name}.json")
  set(copy "${CMAKE_BINARY_DIR}/lib/qmill/plugins/${name}.json")
  add_custom_command(OUTPUT "${copy}" COMMAND "${CMAKE_COMMAND}" -E copy "${source}" "${copy}" DEPENDS "${source}" VERBATIM)
  add_custom_target(qmill_${name} ALL DEPENDS "${copy}")
  install(FILES "${source}" DESTINATION "${CMAKE_INSTALL_LIBDIR}/qmill/plugins")
endfunction()
