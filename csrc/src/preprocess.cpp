#include <algorithm>
#include <cmath>

#include "edgeseg/kernels.h"
#include "scalar_tmp.h"

namespace edgeseg {

static float tap(const Frame& f, int y, int x, int c) {
    y = std::min(std::max(y, 0), f.height - 1);
    x = std::min(std::max(x, 0), f.width - 1);
    if (f.format != PixelFormat::nv12) {
        return f.data[y * f.row_stride + 3 * x + (f.format == PixelFormat::bgr ? 2 - c : c)];
    }
    const std::uint8_t* uv = f.data + (f.height + y / 2) * f.row_stride + (x & ~1);
    const int Y = std::max(0, f.data[y * f.row_stride + x] - 16) * 1220542;
    const int u = uv[0] - 128, v = uv[1] - 128, half = 1 << 19;
    const int s = c == 0 ? Y + half + 1673527 * v : c == 1 ? Y + half - 852492 * v - 409993 * u : Y + half + 2116026 * u;
    return static_cast<float>(std::min(std::max(s >> 20, 0), 255));
}

void preprocess(const Frame& frame, const Rect& content, const Normalization& n, const Tensor& out, int) {
    for (int y = 0; y < out.h; ++y) {
        for (int x = 0; x < out.w; ++x) {
            const int cy = y - content.y, cx = x - content.x;
            const bool inside = cy >= 0 && cy < content.height && cx >= 0 && cx < content.width;
            const double sy = (cy + 0.5) * frame.height / content.height - 0.5;
            const double sx = (cx + 0.5) * frame.width / content.width - 0.5;
            const int y0 = static_cast<int>(std::floor(sy)), x0 = static_cast<int>(std::floor(sx));
            const float fy = static_cast<float>(sy - y0), fx = static_cast<float>(sx - x0);
            for (int c = 0; c < 3; ++c) {
                float grey = n.pad;
                if (inside) {
                    const float top = tap(frame, y0, x0, c) * (1 - fx) + tap(frame, y0, x0 + 1, c) * fx;
                    const float bottom = tap(frame, y0 + 1, x0, c) * (1 - fx) + tap(frame, y0 + 1, x0 + 1, c) * fx;
                    grey = top * (1 - fy) + bottom * fy;
                }
                const float value = out.dtype == DType::uint8 ? grey : (grey - n.mean[c]) / n.std[c];
                store(out, c * out.stride_c + y * out.stride_h + x * out.stride_w, value);
            }
        }
    }
}

}  // namespace edgeseg
