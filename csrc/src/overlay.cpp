#include "edgeseg/kernels.h"

namespace edgeseg {

void overlay(const Frame& frame, const std::uint8_t* labels, std::ptrdiff_t label_stride,
             const std::uint8_t* palette, int alpha, std::uint8_t* out, std::ptrdiff_t out_stride, int) {
    for (int y = 0; y < frame.height; ++y)
        for (int x = 0; x < frame.width; ++x) {
            const int label = labels[y * label_stride + x];
            for (int c = 0; c < 3; ++c) {
                const int grey = frame.data[y * frame.row_stride + 3 * x + c];
                const int blend = (grey * (256 - alpha) + palette[3 * label + c] * alpha + 128) >> 8;
                out[y * out_stride + 3 * x + c] = static_cast<std::uint8_t>(label == 255 ? grey : blend);
            }
        }
}

}  // namespace edgeseg
