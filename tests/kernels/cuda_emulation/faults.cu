// Kernels with the mistakes that the emulation is there to find.
#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 64;

// Each thread takes its neighbour's value; right with a barrier only.
template <bool kBarrier>
__global__ void rotate(float* out) {
    __shared__ float values[kThreads];
    values[threadIdx.x] = threadIdx.x;
    if (kBarrier) __syncthreads();
    out[threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
}

__global__ void read_unwritten(float* out) {
    __shared__ float values[kThreads];
    extern __shared__ float more[];
    out[threadIdx.x] = threadIdx.x % 2 == 0 ? values[threadIdx.x] : more[threadIdx.x];
}

__global__ void half_a_barrier(float*) {
    if (threadIdx.x < kThreads / 2) __syncthreads();
}

__global__ void half_a_warp(float* out) {
    if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0F, 2);
}

const char* run(void (*kernel)(float*), float* out) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(1, 1, 1);
    config.blockDim = dim3(kThreads, 1, 1);
    config.dynamicSmemBytes = kThreads * sizeof(float);
    return cudaGetErrorString(cudaLaunchKernelEx(&config, kernel, out));
}

}  // namespace

// Each writes 64 floats and returns the launch's error text.
#define EXPORTED extern "C" __attribute__((visibility("default"))) const char*
EXPORTED with_barrier(float* out) { return run(rotate<true>, out); }
EXPORTED without_barrier(float* out) { return run(rotate<false>, out); }
EXPORTED unwritten(float* out) { return run(read_unwritten, out); }
EXPORTED divergent_barrier(float* out) { return run(half_a_barrier, out); }
EXPORTED divergent_warp(float* out) { return run(half_a_warp, out); }
