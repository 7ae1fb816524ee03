#include "edgeseg/engine.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace edgeseg {
namespace {

// One dimension of a Placement.
struct Span {
    int offset, extent;
    double start, length;  // in the logits
};

Span centred(int extent, int input, int logits, bool align_corners) {
    const int offset = (input - extent) / 2;
    // With aligned corners distances between centres count: n pixels span n - 1 steps.
    const int border = align_corners ? 1 : 0;
    const double ratio = static_cast<double>(logits - border) / std::max(input - border, 1);
    return {offset, extent, offset * ratio, (extent - border) * ratio};
}

// Rounded half to even, as the FPU does.
int scaled(int size, double scale) {
    return std::max(1, static_cast<int>(std::nearbyint(size * scale)));
}

}  // namespace

Placement place(Size frame, Size input, Resize resize, Size logits, bool align_corners) {
    Size extent = input;
    if (resize == Resize::letterbox) {
        const double scale = std::min(static_cast<double>(input.height) / frame.height,
                                      static_cast<double>(input.width) / frame.width);
        extent = {scaled(frame.height, scale), scaled(frame.width, scale)};
    }
    const Span rows = centred(extent.height, input.height, logits.height, align_corners);
    const Span columns = centred(extent.width, input.width, logits.width, align_corners);
    return {{rows.offset, columns.offset, rows.extent, columns.extent},
            {rows.start, columns.start, rows.length, columns.length}};
}

std::array<std::uint8_t, 256 * 3> colours(const EngineInfo& engine, PixelFormat format) {
    std::array<std::uint8_t, 256 * 3> table{};
    for (int id = 0; id < engine.class_count; ++id) {
        for (int c = 0; c < 3; ++c) {
            const int channel = format == PixelFormat::bgr ? 2 - c : c;
            table[static_cast<std::size_t>(3 * id + c)] = engine.palette[id][channel];
        }
    }
    return table;
}

}  // namespace edgeseg
