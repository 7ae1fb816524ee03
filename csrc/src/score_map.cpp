#include <cmath>
#include <cstring>

#include "edgeseg/kernels.h"
#include "scalar_tmp.h"

namespace edgeseg {

void score_map_concat(const Tensor& f, const float* text, int classes, const Tensor& out, int) {
    const std::size_t size = f.dtype == DType::float32 ? 4 : 2;
    for (int n = 0; n < f.n; ++n)
        for (int y = 0; y < f.h; ++y)
            for (int x = 0; x < f.w; ++x) {
                const std::ptrdiff_t from = n * f.stride_n + y * f.stride_h + x * f.stride_w;
                const std::ptrdiff_t to = n * out.stride_n + y * out.stride_h + x * out.stride_w;
                float square = 0;
                for (int c = 0; c < f.c; ++c) {
                    const float v = load(f, from + c * f.stride_c);
                    square += v * v;
                    std::memcpy(static_cast<char*>(out.data) + (to + c * out.stride_c) * static_cast<std::ptrdiff_t>(size),
                                static_cast<const char*>(f.data) + (from + c * f.stride_c) * static_cast<std::ptrdiff_t>(size), size);
                }
                for (int k = 0; k < classes; ++k) {
                    float dot = 0;
                    for (int c = 0; c < f.c; ++c) dot += load(f, from + c * f.stride_c) * text[k * f.c + c];
                    store(out, to + (f.c + k) * out.stride_c, square > 0 ? dot / std::sqrt(square) : 0);
                }
            }
}

}  // namespace edgeseg
