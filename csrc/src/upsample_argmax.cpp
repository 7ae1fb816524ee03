#include <algorithm>
#include <cmath>

#include "edgeseg/kernels.h"
#include "scalar_tmp.h"

namespace edgeseg {

static double position(int i, int count, double start, double extent, bool align, int size) {
    const double p = align ? start + (count > 1 ? i * extent / (count - 1) : 0.0) : start + (i + 0.5) * extent / count - 0.5;
    return std::min(std::max(p, 0.0), size - 1.0);
}

void upsample_argmax(const Tensor& t, const RectF& s, bool align, const Labels& labels, float* confidence, int) {
    for (int n = 0; n < t.n; ++n)
        for (int Y = 0; Y < labels.height; ++Y) {
            const double y = position(Y, labels.height, s.y, s.height, align, t.h);
            const int y0 = static_cast<int>(y), y1 = std::min(y0 + 1, t.h - 1);
            const float fy = static_cast<float>(y - y0);
            for (int X = 0; X < labels.width; ++X) {
                const double x = position(X, labels.width, s.x, s.width, align, t.w);
                const int x0 = static_cast<int>(x), x1 = std::min(x0 + 1, t.w - 1);
                const float fx = static_cast<float>(x - x0);
                float best = 0, values[256];
                int label = 0;
                for (int k = 0; k < t.c; ++k) {
                    const std::ptrdiff_t base = n * t.stride_n + k * t.stride_c;
                    const auto at = [&](int yy, int xx) { return load(t, base + yy * t.stride_h + xx * t.stride_w); };
                    const float l = at(y0, x0) + (at(y1, x0) - at(y0, x0)) * fy;
                    const float r = at(y0, x1) + (at(y1, x1) - at(y0, x1)) * fy;
                    values[k] = l + (r - l) * fx;
                    if (k == 0 || values[k] > best) best = values[k], label = k;
                }
                labels.data[n * labels.image_stride + Y * labels.row_stride + X] = static_cast<std::uint8_t>(label);
                if (confidence) {
                    float sum = 0;
                    for (int k = 0; k < t.c; ++k) sum += std::exp(values[k] - best);
                    confidence[(std::ptrdiff_t{n} * labels.height + Y) * labels.width + X] = 1 / sum;
                }
            }
        }
}

}  // namespace edgeseg
