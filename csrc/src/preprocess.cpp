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
    float bottom_weight;
};

struct PreprocessJob {
    const Frame& frame;
    const Rect& content;
    const Tensor& out;
    const RowTaps* rows;        // of every content row
    const int* left;            // of every content column: the left tap's first sample in a line
    const float* right_weight;  // of every content column
    bool interpolate_columns;   // not all right_weight are 0
    int pixel_samples;          // of a line: 3, or 4 with an unused one
    float scale[3], shift[3];   // in the frame's channel order
    float pad[3];               // in RGB order, normalised
};

// A row of an NV12 frame as R, G, B, 0 in the bytes of each number.
struct ConvertedRow {
    std::uint32_t* rgbx;
    int y;
};

struct PreprocessScratch {
    ConvertedRow converted[2];  // the last even and the last odd row
    float* line;                // one frame row
    float* planes[3];           // one output row as R, G, B
    float* narrow;              // room for one row of one plane in any dtype
};

}  // namespace
}  // namespace edgeseg

#define EDGESEG_KERNELS "preprocess.simd.h"
#include "foreach_level.h"

namespace edgeseg {
namespace {

// The resampling kernel works in vectors of up to 16 pixels and looks a little beyond them.
constexpr int kExcess = 32;

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

Columns column_taps(int count, int size, int pixel_samples) {
    Columns columns{std::vector<int>(static_cast<std::size_t>(count + kExcess)),
                    std::vector<float>(static_cast<std::size_t>(count + kExcess))};
    for (int i = 0; i < count; ++i) {
        const double position = half_pixel_position(i, count, size);
        const int left = static_cast<int>(position);
        columns.left[static_cast<std::size_t>(i)] = pixel_samples * left;
        columns.right_weight[static_cast<std::size_t>(i)] = static_cast<float>(position - left);
    }
    return columns;
}

}  // namespace

void preprocess(const Frame& frame, const Rect& content, const Normalization& normalization,
                const Tensor& out, int threads) {
    const bool nv12 = frame.format == PixelFormat::nv12;
    const int pixel_samples = nv12 ? 4 : 3;
    const std::vector<RowTaps> rows = row_taps(content.height, frame.height);
    const Columns columns = column_taps(content.width, frame.width, pixel_samples);
    PreprocessJob job{frame,
                      content,
                      out,
                      rows.data(),
                      columns.left.data(),
                      columns.right_weight.data(),
                      std::any_of(columns.right_weight.begin(), columns.right_weight.end(),
                                  [](float weight) { return weight != 0; }),
                      pixel_samples,
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
    parallel_ranges(threads, out.h, [&](int first, int last) {
        const int converted_width = nv12 ? frame.width : 0;
        std::vector<std::uint32_t> converted(static_cast<std::size_t>(2 * converted_width));
        // Behind the last pixel the right tap has weight 0, but is read: four zeros.
        std::vector<float> line(static_cast<std::size_t>(pixel_samples * frame.width + 4));
        const int plane = out.w + kExcess;
        std::vector<float> planes(static_cast<std::size_t>(4 * plane));
        PreprocessScratch scratch{
            {{converted.data(), -1}, {converted.data() + converted_width, -1}},
            line.data(),
            {planes.data(), planes.data() + plane, planes.data() + 2 * plane},
            planes.data() + 3 * plane};
        process_rows(job, first, last, scratch);
    });
}

}  // namespace edgeseg
