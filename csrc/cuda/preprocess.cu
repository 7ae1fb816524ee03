// Frame -> normalised network input: one thread for four pixels of an output column.
#include "launch.cuh"
#include "pixel.cuh"

namespace edgeseg::cuda {
namespace {

// A block covers 32×32 output pixels. Positions are double precision; computing them once per row
// and column of the block keeps them off the pixels, where GPUs with few double units would stall.
constexpr int kTile = 32;
constexpr int kThreadRows = 8;
constexpr int kChannels = 3;

struct Interleaved {
    const std::uint8_t* data;
    std::ptrdiff_t row_stride;
    bool blue_first;

    __device__ __forceinline__ Rgb at(int y, int x) const {
        const std::uint8_t* pixel = data + y * row_stride + x * kChannels;
        const std::uint8_t first = __ldg(pixel);
        const std::uint8_t last = __ldg(pixel + 2);
        return {blue_first ? last : first, __ldg(pixel + 1), blue_first ? first : last};
    }
};

struct Nv12 {
    const std::uint8_t* luma;
    const std::uint8_t* chroma;
    std::ptrdiff_t row_stride;

    __device__ __forceinline__ Rgb at(int y, int x) const {
        const std::uint8_t* uv = chroma + (y / 2) * row_stride + (x & ~1);
        return yuv_to_rgb(__ldg(luma + y * row_stride + x), __ldg(uv), __ldg(uv + 1));
    }
};

// Rows and columns of the output's content rectangle on the frame.
struct Resize {
    Rect content;
    Axis rows, columns;
};

struct Scale {
    float mean[kChannels];
    float inverse_std[kChannels];
    float pad;
};

template <typename Pixels, typename Out>
__global__ void __launch_bounds__(kTile* kThreadRows)
    preprocess_kernel(Pixels pixels, Resize resize, Scale scale, Tensor out) {
    __shared__ int row_index[kTile], column_index[kTile];
    __shared__ float row_fraction[kTile], column_fraction[kTile];

    const int thread = threadIdx.y * kTile + threadIdx.x;
    if (thread < 2 * kTile) {  // the first warp locates the columns, the second one the rows
        const bool is_row = thread >= kTile;
        const int pixel = threadIdx.x + kTile * (is_row ? blockIdx.y : blockIdx.x);
        const Position position = locate(is_row ? resize.rows : resize.columns, pixel);
        (is_row ? row_index : column_index)[threadIdx.x] = position.index;
        (is_row ? row_fraction : column_fraction)[threadIdx.x] =
            static_cast<float>(position.fraction);
    }
    __syncthreads();

    const int x = blockIdx.x * kTile + threadIdx.x;
    if (x >= out.w) return;
    const Rect& content = resize.content;
    const bool inside_column = x >= content.x && x < content.x + content.width;
    const int left = column_index[threadIdx.x];
    const int right = left + (resize.columns.size > 1);
    const float across = column_fraction[threadIdx.x];

    for (int row = threadIdx.y; row < kTile; row += kThreadRows) {
        const int y = blockIdx.y * kTile + row;
        if (y >= out.h) return;

        float grey[kChannels] = {scale.pad, scale.pad, scale.pad};
        if (inside_column && y >= content.y && y < content.y + content.height) {
            const int top = row_index[row];
            const int bottom = top + (resize.rows.size > 1);
            const float down = row_fraction[row];
            const Rgb a = pixels.at(top, left), b = pixels.at(top, right);
            const Rgb c = pixels.at(bottom, left), d = pixels.at(bottom, right);
            grey[0] =
                bilinear({float(a.red), float(b.red), float(c.red), float(d.red)}, down, across);
            grey[1] = bilinear({float(a.green), float(b.green), float(c.green), float(d.green)},
                               down, across);
            grey[2] = bilinear({float(a.blue), float(b.blue), float(c.blue), float(d.blue)}, down,
                               across);
        }
        Out* pixel = static_cast<Out*>(out.data) + y * out.stride_h + x * out.stride_w;
        for (int channel = 0; channel < kChannels; ++channel) {
            pixel[channel * out.stride_c] =
                normalized<Out>(grey[channel], scale.mean[channel], scale.inverse_std[channel]);
        }
    }
}

// Half-pixel centres: output pixel i of a content that starts at `first` and has `length` pixels.
Axis half_pixel_axis(int first, int length, int frame_size) {
    const double scale = static_cast<double>(frame_size) / length;
    return {(0.5 - first) * scale - 0.5, scale, frame_size};
}

template <typename Pixels>
void preprocess_from(const Pixels& pixels, const Resize& resize, const Scale& scale,
                     const Tensor& out, Stream stream) {
    const dim3 block(kTile, kThreadRows);
    const dim3 grid(ceil_div(out.w, kTile), ceil_div(out.h, kTile));
    const auto run = [&](auto value) {
        launch("preprocess", preprocess_kernel<Pixels, decltype(value)>, grid, block, 0, stream,
               pixels, resize, scale, out);
    };
    if (out.dtype == DType::uint8) {
        run(std::uint8_t{});
    } else {
        with_float_type(out.dtype, run);
    }
}

}  // namespace

void preprocess(const Frame& frame, const Rect& content, const Normalization& normalization,
                const Tensor& out, Stream stream) {
    const Resize resize{content, half_pixel_axis(content.y, content.height, frame.height),
                        half_pixel_axis(content.x, content.width, frame.width)};
    Scale scale{};
    scale.pad = normalization.pad;
    for (int channel = 0; channel < kChannels; ++channel) {
        scale.mean[channel] = normalization.mean[channel];
        scale.inverse_std[channel] = 1.0f / normalization.std[channel];
    }
    if (frame.format == PixelFormat::nv12) {
        const Nv12 pixels{frame.data, frame.data + frame.height * frame.row_stride,
                          frame.row_stride};
        preprocess_from(pixels, resize, scale, out, stream);
    } else {
        const Interleaved pixels{frame.data, frame.row_stride, frame.format == PixelFormat::bgr};
        preprocess_from(pixels, resize, scale, out, stream);
    }
}

}  // namespace edgeseg::cuda
