# What `cmake --install` and the wheel put on disk: library, public headers, package files for CMake and pkg-config.
include(CMakePackageConfigHelpers)
set(_dir ${CMAKE_INSTALL_LIBDIR}/cmake/wamcore)

install(TARGETS wamcore EXPORT wamcoreTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT devel
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT devel
  FILE_SET HEADERS DESTINATION include COMPONENT devel)
install(EXPORT wamcoreTargets NAMESPACE wamcore:: DESTINATION ${_dir} COMPONENT devel)

configure_package_config_file(cmake/wamcoreConfig.cmake.in wamcoreConfig.cmake INSTALL_DESTINATION ${_dir})
# While the version is 0.x every minor release may change the interface.
write_basic_package_version_file(wamcoreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/wamcoreConfig.cmake ${PROJECT_BINARY_DIR}/wamcoreConfigVersion.cmake
  DESTINATION ${_dir} COMPONENT devel)

configure_file(cmake/wamcore.pc.in wamcore.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/wamcore.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT devel)
