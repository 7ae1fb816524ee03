// Launching a kernel, and one exception for whatever goes wrong with it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "edgeseg/cuda.h"

namespace edgeseg::cuda {

// Says which kernel failed, why, and what to do about it.
[[noreturn]] void throw_launch_error(const char* kernel_name, cudaError_t error);

template <typename... Parameters, typename... Arguments>
void launch(const char* kernel_name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, Stream stream, Arguments&&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    const cudaError_t error =
        cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
    if (error != cudaSuccess) throw_launch_error(kernel_name, error);
}

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Calls `body` with a value of the type that `dtype` (float32, float16 or bfloat16) stores.
template <typename Body>
void with_float_type(DType dtype, const Body& body) {
    switch (dtype) {
        case DType::float16:
            return body(__half{});
        case DType::bfloat16:
            return body(__nv_bfloat16{});
        default:
            return body(float{});
    }
}

// Whether four T at `address` can be written at once.
template <typename T>
__device__ __forceinline__ bool holds_quad(const T* address) {
    return reinterpret_cast<std::uintptr_t>(address) % (4 * sizeof(T)) == 0;
}

}  // namespace edgeseg::cuda
