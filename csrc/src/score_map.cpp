#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "edgeseg/kernels.h"
#include "parallel.h"

namespace edgeseg {
namespace {

constexpr int kClassGroup = 4;
constexpr int kChannelChunk = 128;
constexpr int kMostBlockPixels = 32;

struct ScoreMapJob {
    const Tensor& features;
    const Tensor& out;
    const float* text;  // groups of kClassGroup classes, each C×kClassGroup; the last one padded
    int classes;
    std::ptrdiff_t step, out_step;  // between the pixels of a run
};

std::vector<float> group_text(const float* text, int classes, int channels) {
    const int groups = (classes + kClassGroup - 1) / kClassGroup;
    std::vector<float> grouped(static_cast<std::size_t>(groups) * kClassGroup *
                               static_cast<std::size_t>(channels));
    for (int k = 0; k < classes; ++k) {
        float* group = grouped.data() + std::ptrdiff_t{k / kClassGroup} * kClassGroup * channels;
        for (int c = 0; c < channels; ++c) {
            group[c * kClassGroup + k % kClassGroup] = text[std::ptrdiff_t{k} * channels + c];
        }
    }
    return grouped;
}

// The distance between neighbouring pixels of a row; of a column, where a row is one pixel.
std::ptrdiff_t pixel_step(const Tensor& tensor) {
    return tensor.w == 1 ? tensor.stride_h : tensor.stride_w;
}

// Whether all pixels of an image lie one step apart, rows included.
bool is_one_run(const Tensor& tensor) {
    return tensor.h == 1 || tensor.stride_h == tensor.w * pixel_step(tensor);
}

}  // namespace
}  // namespace edgeseg

#define EDGESEG_KERNELS "score_map.simd.h"
#include "foreach_level.h"

namespace edgeseg {

void score_map_concat(const Tensor& features, const float* text, int classes, const Tensor& out,
                      int threads) {
    const std::vector<float> grouped = group_text(text, classes, features.c);
    const ScoreMapJob job{features,       out, grouped.data(), classes, pixel_step(features),
                          pixel_step(out)};

    const bool flat = is_one_run(features) && is_one_run(out);
    const int runs = flat ? 1 : features.h;
    const int run_pixels = flat ? features.h * features.w : features.w;
    // Whole blocks at every level; small enough to share 512 pixels among threads.
    constexpr int kChunkPixels = 2 * kMostBlockPixels;
    const int chunks = (run_pixels + kChunkPixels - 1) / kChunkPixels;

    const auto score_run = EDGESEG_PICK(score_map_run);
    parallel_for(threads, features.n * runs * chunks, [&](int i) {
        const int n = i / (runs * chunks), y = i / chunks % runs, x = i % chunks * kChunkPixels;
        std::vector<float> scratch(static_cast<std::size_t>(features.c) * (kMostBlockPixels + 1));
        score_run(job, n * features.stride_n + y * features.stride_h + x * job.step,
                  n * out.stride_n + y * out.stride_h + x * job.out_step,
                  std::min(kChunkPixels, run_pixels - x), scratch.data());
    });
}

}  // namespace edgeseg
