#include "dispatch.h"

#include <array>
#include <atomic>
#include <cstring>

#include "edgeseg/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace edgeseg {
namespace {

#if defined(__x86_64__)
bool has_f16c() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

int best_level() {
    __builtin_cpu_init();
    // These ask the operating system too: it must save the wide registers.
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) {
        return 0;
    }
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx512 ? 2 : 1;
}
#else
int best_level() { return 0; }
#endif

// The names of levels 0..best_level(), null-terminated.
using Names = std::array<const char*, std::size(kLevelNames)>;
const Names& runnable() {
    static const Names names = [] {
        Names result{};
        for (int i = 0; i <= best_level(); ++i) {
            result[static_cast<std::size_t>(i)] = kLevelNames[i];
        }
        return result;
    }();
    return names;
}

std::atomic<int>& level() {
    static std::atomic<int> value{best_level()};
    return value;
}

}  // namespace

int active_level() { return level().load(std::memory_order_relaxed); }

const char* const* dispatch_levels() { return runnable().data(); }

const char* dispatch_level() { return kLevelNames[active_level()]; }

bool set_dispatch_level(const char* name) {
    const Names& names = runnable();
    for (int i = 0; names[static_cast<std::size_t>(i)] != nullptr; ++i) {
        if (std::strcmp(name, names[static_cast<std::size_t>(i)]) == 0) {
            level().store(i, std::memory_order_relaxed);
            return true;
        }
    }
    return false;
}

}  // namespace edgeseg
