#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "edgeseg/kernels.h"
#include "parallel.h"

namespace edgeseg {
namespace {

// Stands where a colour's share would: blend nothing. No real share is as large.
constexpr std::uint16_t kKeepFrame = 0xffff;

struct OverlayJob {
    const std::uint8_t* frame;
    const std::uint8_t* labels;
    std::uint8_t* out;
    std::ptrdiff_t frame_stride, label_stride, out_stride;
    int width;
    int alpha;
    std::uint16_t colours[256][4];  // colour * alpha + 128, and one unused
};

}  // namespace
}  // namespace edgeseg

#define EDGESEG_KERNELS "overlay.simd.h"
#include "foreach_level.h"

namespace edgeseg {

void overlay(const Frame& frame, const std::uint8_t* labels, std::ptrdiff_t label_stride,
             const std::uint8_t* palette, int alpha, std::uint8_t* out, std::ptrdiff_t out_stride,
             int threads) {
    OverlayJob job{frame.data,  labels, out, frame.row_stride, label_stride, out_stride,
                   frame.width, alpha,  {}};
    for (int label = 0; label < 255; ++label) {
        for (int c = 0; c < 3; ++c) {
            job.colours[label][c] =
                static_cast<std::uint16_t>(palette[3 * label + c] * alpha + 128);
        }
    }
    std::fill_n(job.colours[255], 4, kKeepFrame);

    const auto blend_rows = EDGESEG_PICK(overlay_rows);
    parallel_ranges(threads, frame.height, [&](int first, int last) {
        std::vector<std::uint16_t> added(3 * static_cast<std::size_t>(frame.width) + 1);
        blend_rows(job, first, last, added.data());
    });
}

}  // namespace edgeseg
