#include <cstring>

#include "edgeseg/kernels.h"

namespace edgeseg {

const char* const* dispatch_levels() {
    static const char* const levels[] = {"baseline", nullptr};
    return levels;
}

const char* dispatch_level() { return "baseline"; }

bool set_dispatch_level(const char* name) { return std::strcmp(name, "baseline") == 0; }

}  // namespace edgeseg
