// What a shared library shows. A static one has nothing to say here.
#pragma once

#ifdef EDGESEG_SHARED  // set by the build and, through CMake and pkg-config, for users
#define EDGESEG_API __attribute__((visibility("default")))
#else
#define EDGESEG_API
#endif
