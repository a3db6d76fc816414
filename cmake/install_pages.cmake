# At installation: completion and the manual page, which the command makes itself. Where it cannot run (built for another machine), they
# are left out.
#
#   command  the program; made  a folder to make them in; datadir  where they go below the prefix
function(install_page name)
  get_filename_component(folder "${name}" DIRECTORY)
  file(MAKE_DIRECTORY "${made}/${folder}")
  execute_process(COMMAND "${command}" ${ARGN} OUTPUT_FILE "${made}/${name}" RESULT_VARIABLE status)
  if(status EQUAL 0)
    file(INSTALL "${made}/${name}" DESTINATION "${CMAKE_INSTALL_PREFIX}/${datadir}/${folder}")
  else()
    message(WARNING "${name} is not installed: '${command} ${ARGN}' says ${status}")
  endif()
endfunction()

install_page(bash-completion/completions/qmill completion bash)
install_page(zsh/site-functions/_qmill completion zsh)
install_page(man/man1/qmill.1 man)
