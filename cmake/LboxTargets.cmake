# What every C target of the project shares, and how a Lua module is made of csrc/lua.

function(lbox_target target)
  set_target_properties(${target} PROPERTIES
    C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
    C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
    -Wundef -Wformat=2 -Wvla $<$<BOOL:${LBOX_WERROR}>:-Werror>)
  if(LBOX_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined
      -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
endfunction()

# lbox_lua_module(5.4 LUA54): build/lua/5.4/lbox/core.so from csrc/lua with that Lua's headers.
# The module never links liblua: its symbols come from the host. It is never unloaded (nodelete),
# since a resolver thread of libcurl may outlive the Lua state that opened it.
function(lbox_lua_module abi lua)
  string(REPLACE "." "" suffix ${abi})
  set(target lbox_lua_${suffix})
  add_library(${target} MODULE ${binding_sources})
  lbox_target(${target})
  target_include_directories(${target} PRIVATE ${${lua}_INCLUDE_DIRS})
  target_link_libraries(${target} PRIVATE lbox_core)
  target_link_options(${target} PRIVATE -Wl,-z,nodelete)
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME core
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lua/${abi}/lbox)
  set(lua_abi ${abi})
  if(abi STREQUAL "luajit")
    set(lua_abi 5.1)
  endif()
  install(TARGETS ${target} DESTINATION ${CMAKE_INSTALL_LIBDIR}/lua/${lua_abi}/lbox)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/lua/lbox DESTINATION ${CMAKE_INSTALL_DATADIR}/lua/${lua_abi}
    FILES_MATCHING PATTERN "*.lua" PATTERN "server" EXCLUDE PATTERN "cli" EXCLUDE)
endfunction()
