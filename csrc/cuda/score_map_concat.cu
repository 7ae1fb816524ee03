// Features and their cosine scores with every class, side by side.
#include "score_map_fma.cuh"
#include "score_map_mma.cuh"

namespace edgeseg::cuda {
namespace {

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kMaxThreads, 3)
    score_map_concat_fma_kernel(Tensor features, const float* __restrict__ text, int classes,
                                Tensor out, Access access) {
    score_map_concat_fma<T, kChannelsLast>(features, text, classes, out, access);
}

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kTensorThreads, 2)
    score_map_concat_mma_kernel(Tensor features, const float* __restrict__ text, int classes,
                                Tensor out, Access access) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    score_map_concat_mma<T, kChannelsLast>(features, text, classes, out, access);
#endif
}

// Whether what was compiled for this device has the body above.
template <typename Kernel>
bool has_tensor_cores(Kernel* kernel) {
    cudaFuncAttributes attributes{};
    if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess) {
        return attributes.ptxVersion >= 80;
    }
    cudaGetLastError();  // the launch will say it
    return false;
}

}  // namespace

void score_map_concat(const Tensor& features, const float* text, int classes, const Tensor& out,
                      Stream stream) {
    const bool channels_last = features.stride_c == 1;
    const std::int64_t pixels = std::int64_t{features.n} * features.h * features.w;
    // Classes that do not fit one block are shared out evenly among several, which read the
    // features again (from the cache).
    const auto grid = [&](int block_pixels, int block_classes) {
        return dim3(static_cast<unsigned>((pixels + block_pixels - 1) / block_pixels),
                    ceil_div(classes, block_classes));
    };
    with_float_type(features.dtype, [&](auto value) {
        using T = decltype(value);
        const Access access = access_to<T>(features, text, out, channels_last);
        if constexpr (!std::is_same_v<T, float>) {
            const auto kernel = channels_last ? score_map_concat_mma_kernel<T, true>
                                              : score_map_concat_mma_kernel<T, false>;
            if (has_tensor_cores(kernel)) {
                launch("score_map_concat", kernel, grid(kTensorPixels, kTensorClasses),
                       kTensorThreads, 0, stream, features, text, classes, out, access);
                return;
            }
        }
        const int busy_threads = ceil_div(features.c, kRun);
        const int threads =
            busy_threads < kMaxThreads ? ceil_div(busy_threads, kWarp) * kWarp : kMaxThreads;
        launch("score_map_concat",
               channels_last ? score_map_concat_fma_kernel<T, true>
                             : score_map_concat_fma_kernel<T, false>,
               grid(RegisterTile<T, false>::kPixels, kMaxSums - 1), threads, 0, stream, features,
               text, classes, out, access);
    });
}

}  // namespace edgeseg::cuda
