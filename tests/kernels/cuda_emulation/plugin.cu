// Calls the plugin's entry points as the driver's cuLaunchKernel does: by the addresses of the
// arguments, one for each parameter of the kernel.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstring>
#include <utility>

#define EDGESEG_ENTRY(dtype, T)                                                                  \
    extern "C" void edgeseg_score_map_concat_##dtype(const T*, const float*, int, int, int, int, \
                                                     T*);
EDGESEG_ENTRY(float32, float)
EDGESEG_ENTRY(float16, __half)
EDGESEG_ENTRY(bfloat16, __nv_bfloat16)

namespace {

template <typename... Parameters, std::size_t... kIndices>
cudaError_t run(void (*kernel)(Parameters...), const cudaLaunchConfig_t& config, void** arguments,
                std::index_sequence<kIndices...>) {
    return cudaLaunchKernelEx(&config, kernel, *static_cast<Parameters*>(arguments[kIndices])...);
}

template <typename... Parameters>
cudaError_t run(void (*kernel)(Parameters...), const cudaLaunchConfig_t& config, void** arguments) {
    return run(kernel, config, arguments, std::index_sequence_for<Parameters...>());
}

}  // namespace

// Returns the launch's error text.
extern "C" __attribute__((visibility("default"))) const char* launch_plugin(const char* entry,
                                                                            const unsigned* grid,
                                                                            const unsigned* block,
                                                                            unsigned shared_memory,
                                                                            void** arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(grid[0], grid[1], grid[2]);
    config.blockDim = dim3(block[0], block[1], block[2]);
    config.dynamicSmemBytes = shared_memory;
    const auto named = [&](const char* name) { return std::strcmp(entry, name) == 0; };
#define EDGESEG_CALL(dtype)                                                                  \
    if (named("edgeseg_score_map_concat_" #dtype)) {                                         \
        return cudaGetErrorString(run(edgeseg_score_map_concat_##dtype, config, arguments)); \
    }
    EDGESEG_CALL(float32)
    EDGESEG_CALL(float16)
    EDGESEG_CALL(bfloat16)
    return "no such entry";
}
