# Compile options that every target of ours shares, as one interface target.
add_library(wamcore_options INTERFACE)
target_compile_features(wamcore_options INTERFACE cxx_std_20)
target_compile_options(wamcore_options INTERFACE -Wall -Wextra -Wshadow
  -Wno-missing-field-initializers  # designated initialisers leave the rest at its default on purpose
  # GCC 12 sees overlapping copies in "literal" + std::string() where there are none (its bug 105651)
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(WAMCORE_SANITIZE)
  target_compile_options(wamcore_options INTERFACE -fsanitize=${WAMCORE_SANITIZE} -fno-omit-frame-pointer -g
    -fno-sanitize-recover=all)
  target_link_options(wamcore_options INTERFACE -fsanitize=${WAMCORE_SANITIZE})
endif()
