#include <algorithm>
#include <cmath>
#include <vector>

#include "dispatch.h"
#include "edgeseg/kernels.h"
#include "parallel.h"

namespace edgeseg {
namespace {

struct RowTaps {
    int top, bottom;
    float weight;  // of bottom
};

struct PreprocessJob {
    const Frame& frame;
    const Rect& content;
    const Tensor& out;
    const RowTaps* rows;        // of every content row
    const int* left;            // of every content column: the left tap's sample in a line
    const float* right_weight;  // of every content column
    bool interpolate_columns;   // not all right_weight are 0
    float scale[3], shift[3];   // in the frame's channel order
    float pad[3];               // in RGB order, normalised
};

struct PreprocessScratch {
    struct Row {
        std::uint8_t* samples;
        int number;  // of the frame's row that `samples` holds
    };
    Row rgb[2];  // NV12 only: the last even and the last odd row
    float* line;
    float* planes[3];
    void* narrow;  // one row of one plane in the output's dtype
};

}  // namespace
}  // namespace edgeseg

#define EDGESEG_KERNELS "preprocess.simd.h"
#include "foreach_level.h"

namespace edgeseg {
namespace {

// The resampling kernel handles four pixels at a time, the last ones perhaps in excess.
constexpr int kExcess = 3;

struct Columns {
    std::vector<int> left;
    std::vector<float> right_weight;
};

// Where output sample i of `count` lies among `size` input samples, inside them.
double half_pixel_position(int i, int count, int size) {
    return std::clamp((i + 0.5) * size / count - 0.5, 0.0, size - 1.0);
}

std::vector<RowTaps> row_taps(int count, int size) {
    std::vector<RowTaps> taps(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        const double position = half_pixel_position(i, count, size);
        const int top = static_cast<int>(position);
        taps[static_cast<std::size_t>(i)] = {top, std::min(top + 1, size - 1),
                                             static_cast<float>(position - top)};
    }
    return taps;
}

Columns column_taps(int count, int size) {
    Columns columns{std::vector<int>(static_cast<std::size_t>(count + kExcess)),
                    std::vector<float>(static_cast<std::size_t>(count + kExcess))};
    for (int i = 0; i < count; ++i) {
        const double position = half_pixel_position(i, count, size);
        const int left = static_cast<int>(position);
        columns.left[static_cast<std::size_t>(i)] = 3 * left;
        columns.right_weight[static_cast<std::size_t>(i)] = static_cast<float>(position - left);
    }
    return columns;
}

}  // namespace

void preprocess(const Frame& frame, const Rect& content, const Normalization& normalization,
                const Tensor& out, int threads) {
    const std::vector<RowTaps> rows = row_taps(content.height, frame.height);
    const Columns columns = column_taps(content.width, frame.width);
    PreprocessJob job{frame,
                      content,
                      out,
                      rows.data(),
                      columns.left.data(),
                      columns.right_weight.data(),
                      std::any_of(columns.right_weight.begin(), columns.right_weight.end(),
                                  [](float weight) { return weight != 0; }),
                      {},
                      {},
                      {}};
    for (int c = 0; c < 3; ++c) {
        const bool normalise = out.dtype != DType::uint8;
        const float scale = normalise ? 1 / normalization.std[c] : 1;
        const float shift = normalise ? -normalization.mean[c] / normalization.std[c] : 0;
        const int place = frame.format == PixelFormat::bgr ? 2 - c : c;
        job.scale[place] = scale;
        job.shift[place] = shift;
        job.pad[c] = normalization.pad * scale + shift;
    }

    const auto process_rows = EDGESEG_PICK(preprocess_rows);
    const int chunk = (out.h + threads - 1) / threads;
    parallel_for(threads, threads, [&](int i) {
        const int samples = 3 * frame.width;
        const bool nv12 = frame.format == PixelFormat::nv12;
        std::vector<std::uint8_t> rgb(static_cast<std::size_t>(nv12 ? 2 * samples : 0));
        // A tap right of the last pixel has weight 0, but is read: four zeros behind it.
        std::vector<float> line(static_cast<std::size_t>(samples + 4));
        const int plane = out.w + kExcess;
        std::vector<float> planes(static_cast<std::size_t>(4 * plane));
        PreprocessScratch scratch{{{rgb.data(), -1}, {rgb.data() + (nv12 ? samples : 0), -1}},
                                  line.data(),
                                  {planes.data(), planes.data() + plane, planes.data() + 2 * plane},
                                  planes.data() + 3 * plane};
        process_rows(job, std::min(i * chunk, out.h), std::min((i + 1) * chunk, out.h), scratch);
    });
}

}  // namespace edgeseg
