#pragma once

// The one source of the version; CMake and the wheel read it from here.
#define WAMCORE_VERSION "0.1.0"
