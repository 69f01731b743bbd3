#pragma once

// Compiles a function for several instruction sets; the loader picks one. A plain build of the library then runs
// everywhere and still vectorises for the machine at hand. Sanitizers cannot see through the loader's choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define WAMCORE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WAMCORE_CLONES
#endif
