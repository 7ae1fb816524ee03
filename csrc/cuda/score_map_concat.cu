#include "score_map_concat.cuh"

namespace edgeseg::cuda {
namespace {

template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kMaxThreads, 3)
    score_map_concat_kernel(Tensor features, const float* __restrict__ text, int classes,
                            Tensor out, Access access) {
    score_map_concat_block<T, kChannelsLast>(features, text, classes, out, access);
}

}  // namespace

void score_map_concat(const Tensor& features, const float* text, int classes, const Tensor& out,
                      Stream stream) {
    const bool channels_last = features.stride_c == 1;

    // Classes that do not fit one block are shared out evenly among several, which read the
    // features again (from the cache).
    const int class_blocks = ceil_div(classes, kMaxSums - 1);
    const int busy_threads = ceil_div(features.c, kRun);
    const int threads =
        busy_threads < kMaxThreads ? ceil_div(busy_threads, kWarp) * kWarp : kMaxThreads;
    const std::int64_t pixels = std::int64_t{features.n} * features.h * features.w;
    const dim3 grid(static_cast<unsigned>((pixels + kPixels - 1) / kPixels), class_blocks);

    with_float_type(features.dtype, [&](auto value) {
        using T = decltype(value);
        launch("score_map_concat",
               channels_last ? score_map_concat_kernel<T, true> : score_map_concat_kernel<T, false>,
               grid, threads, 0, stream, features, text, classes, out,
               access_to<T>(features, text, out, channels_last));
    });
}

}  // namespace edgeseg::cuda
