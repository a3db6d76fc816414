# The layout of a Python wheel (pyproject.toml): everything is in one folder per minor version of torch, beside the modules of the package,
# and finds LibTorch in the torch that is installed beside that.
#
#   site-packages/qmill/torch-2.13/{bin,lib,include,share}
#   site-packages/torch/lib
string(REGEX MATCH "^[0-9]+\\.[0-9]+" _minor "${LibTorch_VERSION}")
set(QMILL_WHEEL_FOLDER "torch-${_minor}")
set(QMILL_TORCH_RPATH "$ORIGIN/../../../torch/lib")
set(CMAKE_INSTALL_BINDIR "${QMILL_WHEEL_FOLDER}/bin")
set(CMAKE_INSTALL_LIBDIR "${QMILL_WHEEL_FOLDER}/lib")
set(CMAKE_INSTALL_INCLUDEDIR "${QMILL_WHEEL_FOLDER}/include")
set(CMAKE_INSTALL_DATADIR "${QMILL_WHEEL_FOLDER}/share")

# A wheel of what a build folder has already: nothing is compiled.
function(qmill_wheel_of_build build)
  install(CODE "
    set(folder \"\${CMAKE_INSTALL_PREFIX}/${QMILL_WHEEL_FOLDER}\")
    execute_process(COMMAND \"${CMAKE_COMMAND}\" --install \"${build}\" --prefix \"\${folder}\" COMMAND_ERROR_IS_FATAL ANY)
    file(GLOB files \"\${folder}/lib/*.so\" \"\${folder}/bin/qmill\")
    foreach(file IN LISTS files)
      file(RPATH_CHANGE FILE \"\${file}\" OLD_RPATH \"\$ORIGIN:\$ORIGIN/../lib:${LibTorch_LIBRARY_DIR}\"
        NEW_RPATH \"\$ORIGIN:\$ORIGIN/../lib:\$ORIGIN/../../../torch/lib\")
    endforeach()")
endfunction()
