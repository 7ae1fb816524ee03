// Just enough of the CUDA runtime to run the project's kernels on the host: one block after the
// other, every thread a fiber. Stands before the toolkit's header of the same name on the include
// path; half and bfloat16 are the toolkit's own.
//  - __syncthreads and the warp intrinsics are rendezvous: threads that do not all come fail the
//    launch instead of hanging.
//  - Between two rendezvous threads run one by one in a shuffled order, so that a missing barrier
//    shows as a wrong result.
//  - Shared memory is full of NaN when a block begins.
#pragma once

#include <crt/host_defines.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#undef __shared__
#define __shared__ static  // blocks run one by one: one copy is enough
#undef __global__
#define __global__
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline

#define EDGESEG_CUDA_ARCHITECTURES "emulation"

namespace emulation {

constexpr int kWarp = 32;

struct Index {
    unsigned x, y, z;
};

// Runs `thread` once for every thread of the launch.
cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread);
const char* error_text(cudaError_t error);

void block_barrier();
// Every lane of the calling warp brings `mine`; returns what all of them brought.
const std::uint64_t* warp_exchange(std::uint64_t mine);
int lane();

// The two places where build.py rewrites a kernel: a static shared array is announced by each
// thread that declares it, and the dynamic one is asked for.
void shared_array(void* address, std::size_t bytes);
void* dynamic_shared();

// The compute capability that kernels were compiled for, as cudaFuncAttributes has it.
extern int ptx_version;

}  // namespace emulation

extern emulation::Index threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

using std::max;
using std::min;

inline void __syncthreads() { emulation::block_barrier(); }

template <typename T>
T __ldg(const T* address) {
    return *address;
}

inline int __ffs(int value) { return __builtin_ffs(value); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    const std::uint64_t* all = emulation::warp_exchange(bits);
    std::memcpy(&value, &all[emulation::lane() ^ lane_mask], sizeof value);
    return value;
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
    const std::uint64_t* all = emulation::warp_exchange(predicate);
    unsigned mask = 0;
    for (int i = 0; i < emulation::kWarp; ++i) mask |= static_cast<unsigned>(all[i]) << i;
    return mask;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    return emulation::launch(*config, [&] { kernel(Parameters(arguments)...); });
}

template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    attributes->ptxVersion = emulation::ptx_version;
    return cudaSuccess;
}

inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 12000;
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return emulation::error_text(error); }
inline const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure"
                                           : "cudaErrorInvalidConfiguration";
}
