// Which instruction set the kernels use. Every kernel is compiled once per level from one source
// (see foreach_level.h); the choice between the copies is made when it is called.
#pragma once

namespace edgeseg {

#if defined(__x86_64__)
constexpr const char* kLevelNames[] = {"baseline", "avx2", "avx512", nullptr};
#elif defined(__aarch64__)
constexpr const char* kLevelNames[] = {"neon", nullptr};
#else
constexpr const char* kLevelNames[] = {"baseline", nullptr};
#endif

// Index of the level in use in kLevelNames.
int active_level();

// The active level's copy of a kernel: EDGESEG_PICK(preprocess_rows)(arguments).
template <class Kernel, class... Wider>
Kernel pick(Kernel narrowest, Wider... wider) {
    const Kernel kernels[] = {narrowest, wider...};
    return kernels[active_level()];
}
#if defined(__x86_64__)
#define EDGESEG_PICK(kernel)                                                \
    ::edgeseg::pick(&::edgeseg::baseline::kernel, &::edgeseg::avx2::kernel, \
                    &::edgeseg::avx512::kernel)
// For work in runs of at most eight values: of 512 bits half would be empty, and they cost more.
#define EDGESEG_PICK_EIGHT(kernel)                                          \
    ::edgeseg::pick(&::edgeseg::baseline::kernel, &::edgeseg::avx2::kernel, \
                    &::edgeseg::avx2::kernel)
#elif defined(__aarch64__)
#define EDGESEG_PICK(kernel) ::edgeseg::pick(&::edgeseg::neon::kernel)
#define EDGESEG_PICK_EIGHT EDGESEG_PICK
#else
#define EDGESEG_PICK(kernel) ::edgeseg::pick(&::edgeseg::baseline::kernel)
#define EDGESEG_PICK_EIGHT EDGESEG_PICK
#endif

}  // namespace edgeseg
