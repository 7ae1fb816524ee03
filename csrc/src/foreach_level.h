// Compiles the file named by EDGESEG_KERNELS once per dispatch level, each time in a namespace of
// the level's name and with the level's instruction set allowed to its functions only:
//
//     #define EDGESEG_KERNELS "overlay.simd.h"
//     #include "foreach_level.h"
//
// A kernel file calls no inline function of the standard library: a wide copy of it could be the
// one that the linker keeps for the whole program. What it includes is per level as well; headers
// of the usual kind are included before it, here or by the including file.
#include <cstddef>
#include <cstdint>

#include "edgeseg/types.h"
#include "half.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define EDGESEG_LEVEL baseline
#define EDGESEG_LANES 4
#include "vec.h"
#include EDGESEG_KERNELS
#undef EDGESEG_LEVEL
#undef EDGESEG_LANES

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define EDGESEG_LEVEL avx2
#define EDGESEG_LANES 8
#include "vec.h"
#include EDGESEG_KERNELS
#undef EDGESEG_LEVEL
#undef EDGESEG_LANES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define EDGESEG_LEVEL avx512
#define EDGESEG_LANES 16
#include "vec.h"
#include EDGESEG_KERNELS
#undef EDGESEG_LEVEL
#undef EDGESEG_LANES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else  // not x86-64: the ABI's baseline is the only level

#if defined(__aarch64__)
#include <arm_neon.h>
#define EDGESEG_LEVEL neon
#else
#define EDGESEG_LEVEL baseline
#endif
#define EDGESEG_LANES 4
#include "vec.h"
#include EDGESEG_KERNELS
#undef EDGESEG_LEVEL
#undef EDGESEG_LANES

#endif
