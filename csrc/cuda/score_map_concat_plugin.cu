// The kernel as TensorRT's ahead-of-time plugin launches it: no host code, tensors linear NCHW,
// arguments in TensorRT's order, which is inputs, extra scalars, outputs. Compiled to PTX.
// python/edgeseg/plugin.py says the same to TensorRT: names, scalars, grid and block.
#include "score_map_fma.cuh"
#include "score_map_mma.cuh"

namespace {

// An image's rows are contiguous, so that h×w pixels are one row of them.
template <typename T>
__device__ __forceinline__ edgeseg::Tensor linear(const T* data, int n, int channels, int pixels) {
    const std::ptrdiff_t plane = pixels;
    // The type is that of the kernel; `dtype` is for the host.
    return {const_cast<T*>(data), {}, n, channels, 1, pixels, channels * plane, plane, plane, 1};
}

template <typename T>
__device__ __forceinline__ void score_map_concat(const T* features, const float* text, int n,
                                                 int channels, int pixels, int classes, T* out) {
    using namespace edgeseg::cuda;
    const edgeseg::Tensor from = linear(features, n, channels, pixels);
    const edgeseg::Tensor to = linear(out, n, channels + classes, pixels);
    const Access access = access_to<T>(from, text, to, false);
    if constexpr (std::is_same_v<T, float>) {
        score_map_concat_fma<T, false>(from, text, classes, to, access);
    } else {
        score_map_concat_mma<T, false>(from, text, classes, to, access);
    }
}

}  // namespace

// features n×channels×h×w, text classes×channels, pixels = h*w, out n×(channels+classes)×h×w.
//   float32            grid ceil(n*pixels / 8) × ceil(classes / 31), block channels / 8 threads,
//                      rounded up to whole warps, at most 128
//   float16, bfloat16  grid ceil(n*pixels / 16) × ceil(classes / 32), block 256 threads
// No dynamic shared memory.
#define EDGESEG_PLUGIN(dtype, T, threads, blocks)                                         \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                         \
        edgeseg_score_map_concat_##dtype(const T* features, const float* text, int n,     \
                                         int channels, int pixels, int classes, T* out) { \
        score_map_concat(features, text, n, channels, pixels, classes, out);              \
    }
EDGESEG_PLUGIN(float32, float, edgeseg::cuda::kMaxThreads, 3)
EDGESEG_PLUGIN(float16, __half, edgeseg::cuda::kTensorThreads, 2)
EDGESEG_PLUGIN(bfloat16, __nv_bfloat16, edgeseg::cuda::kTensorThreads, 2)
