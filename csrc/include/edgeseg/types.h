// Plain views that every kernel takes. They own nothing: pointers, shapes, strides. Pointers are
// aligned to their elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

enum class DType : std::uint8_t { float32, float16, bfloat16, uint8 };

enum class PixelFormat : std::uint8_t { bgr, rgb, nv12 };

// The kernels count in int. No dimension of a frame, tensor or label map is larger than
// kMostExtent; pixels or rows in all, where a contract bounds them, are no more than kMostPieces.
constexpr int kMostExtent = 1 << 24;
constexpr int kMostPieces = 1 << 30;

// A camera frame, uint8.
//   bgr, rgb: H×W×3 interleaved; row_stride is the distance between rows in bytes, >= 3*width.
//   nv12:     H×W luma, followed by H/2 rows of interleaved U,V at the same row stride; height and
//             width are even. Limited-range BT.601, as cv2.COLOR_YUV2BGR_NV12 reads it.
struct Frame {
    const std::uint8_t* data;
    int height;
    int width;
    std::ptrdiff_t row_stride;
    PixelFormat format;
};

// An N×C×H×W tensor. Strides are in elements, so NCHW, channels-last and views are one type.
struct Tensor {
    void* data;
    DType dtype;
    int n, c, h, w;
    std::ptrdiff_t stride_n, stride_c, stride_h, stride_w;
};

// A contiguous one.
constexpr Tensor nchw(void* data, DType dtype, int n, int c, int h, int w) {
    const std::ptrdiff_t row = w, plane = row * h;
    return {data, dtype, n, c, h, w, plane * c, plane, row, 1};
}

// Integer pixel rectangle.
struct Rect {
    int y, x, height, width;
};

// Rectangle in the continuous coordinates of a logit grid; see upsample_argmax.
struct RectF {
    double y, x, height, width;
};

}  // namespace edgeseg
