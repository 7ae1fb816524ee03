// The inner loops of preprocess.cpp, compiled once per dispatch level by foreach_level.h.
#include "pixel_lanes.h"

namespace edgeseg::EDGESEG_LEVEL {

// A line of interleaved samples, interpolated between two frame rows.
inline void blend_rows(const std::uint8_t* top, const std::uint8_t* bottom, float weight,
                       int samples, float* __restrict line) {
    if (weight == 0) {
        for (int i = 0; i < samples; ++i) {
            line[i] = static_cast<float>(top[i]);
        }
        return;
    }
    for (int i = 0; i < samples; ++i) {
        const int step = bottom[i] - top[i];
        line[i] = static_cast<float>(top[i]) + static_cast<float>(step) * weight;
    }
}

// Interpolates along the line and splits it into three planes, scaled and shifted. Writes a
// multiple of kLanes pixels.
template <bool kInterpolate>
void resample_line(const PreprocessJob& job, const float* line, float* const planes[3]) {
    for (int x = 0; x < job.content.width; x += kLanes) {
        Floats pixels[4];
        for (int i = 0; i < 4; ++i) {
            pixels[i] = gather_pixels(line, job.left + x + i);
            if (kInterpolate) {
                const Floats right = gather_pixels(line + job.pixel_samples, job.left + x + i);
                pixels[i] += (right - pixels[i]) * spread_weights(job.right_weight + x + i);
            }
        }
        // Four pixels by four lanes, transposed.
        const Floats low01 = low(pixels[0], pixels[1]);
        const Floats low23 = low(pixels[2], pixels[3]);
        const Floats high01 = high(pixels[0], pixels[1]);
        const Floats high23 = high(pixels[2], pixels[3]);
        store(planes[0] + x, low_pair(low01, low23) * job.scale[0] + job.shift[0]);
        store(planes[1] + x, high_pair(low01, low23) * job.scale[1] + job.shift[1]);
        store(planes[2] + x, low_pair(high01, high23) * job.scale[2] + job.shift[2]);
    }
}

// Limited-range BT.601 in OpenCV's fixed point, bit for bit. Packs a pixel into one number, so that
// its bytes are R, G, B, 0 in memory, and neighbours into neighbouring numbers.
inline std::uint32_t yuv_to_rgbx(int luma, int u, int v) {
    const int grey = (luma > 16 ? luma - 16 : 0) * 1220542 + (1 << 19);
    const int red = (grey + 1673527 * v) >> 20;
    const int green = (grey - 852492 * v - 409993 * u) >> 20;
    const int blue = (grey + 2116026 * u) >> 20;
    const int clamped_red = red < 0 ? 0 : red > 255 ? 255 : red;
    const int clamped_green = green < 0 ? 0 : green > 255 ? 255 : green;
    const int clamped_blue = blue < 0 ? 0 : blue > 255 ? 255 : blue;
    return static_cast<std::uint32_t>(clamped_red | clamped_green << 8 | clamped_blue << 16);
}

inline void nv12_row_to_rgbx(const Frame& frame, int y, std::uint32_t* __restrict rgbx) {
    const std::uint8_t* luma = frame.data + y * frame.row_stride;
    const std::uint8_t* chroma = frame.data + (frame.height + y / 2) * frame.row_stride;
    const int pairs = frame.width / 2;
    for (int pair = 0; pair < pairs; ++pair) {
        const int u = chroma[2 * pair] - 128;
        const int v = chroma[2 * pair + 1] - 128;
        rgbx[2 * pair] = yuv_to_rgbx(luma[2 * pair], u, v);
        rgbx[2 * pair + 1] = yuv_to_rgbx(luma[2 * pair + 1], u, v);
    }
}

// The frame's row y, interleaved; converted into `converted` if the frame is NV12.
inline const std::uint8_t* interleaved_row(const Frame& frame, int y, ConvertedRow& converted) {
    if (frame.format != PixelFormat::nv12) {
        return frame.data + y * frame.row_stride;
    }
    if (converted.y != y) {
        nv12_row_to_rgbx(frame, y, converted.rgbx);
        converted.y = y;
    }
    return reinterpret_cast<const std::uint8_t*>(converted.rgbx);
}

// Row y of the content, into planes R, G, B.
inline void content_row(const PreprocessJob& job, int y, float* const planes[3],
                        PreprocessScratch& scratch) {
    const RowTaps& taps = job.rows[y];
    const std::uint8_t* top = interleaved_row(job.frame, taps.top, scratch.converted[taps.top & 1]);
    const std::uint8_t* bottom = top;
    if (taps.bottom_weight != 0) {
        bottom = interleaved_row(job.frame, taps.bottom, scratch.converted[taps.bottom & 1]);
    }
    blend_rows(top, bottom, taps.bottom_weight, job.pixel_samples * job.frame.width, scratch.line);
    const int red = job.frame.format == PixelFormat::bgr ? 2 : 0;
    float* const frame_order[3] = {planes[red], planes[1], planes[2 - red]};
    if (job.interpolate_columns) {
        resample_line<true>(job, scratch.line, frame_order);
    } else {
        resample_line<false>(job, scratch.line, frame_order);
    }
}

inline void fill(float* to, int count, float value) {
    for (int i = 0; i < count; ++i) {
        to[i] = value;
    }
}

// Output rows first..last-1.
inline void preprocess_rows(const PreprocessJob& job, int first, int last,
                            PreprocessScratch& scratch) {
    const Tensor& out = job.out;
    const Rect& content = job.content;
    const int size = element_size(out.dtype);
    // float32 rows are made in their place, all others in scratch; the resampling writes whole
    // vectors.
    const bool in_place =
        out.dtype == DType::float32 && out.stride_w == 1 && content.width % kLanes == 0;
    for (int y = first; y < last; ++y) {
        char* rows[3];
        float* planes[3];
        float* inner[3];
        for (int c = 0; c < 3; ++c) {
            rows[c] = static_cast<char*>(out.data) + (c * out.stride_c + y * out.stride_h) * size;
            planes[c] = in_place ? reinterpret_cast<float*>(rows[c]) : scratch.planes[c];
            inner[c] = planes[c] + content.x;
        }
        const bool inside = y >= content.y && y < content.y + content.height;
        if (inside) {
            content_row(job, y - content.y, inner, scratch);
        }
        const int left = inside ? content.x : out.w;
        const int right = inside ? content.x + content.width : out.w;
        for (int c = 0; c < 3; ++c) {
            fill(planes[c], left, job.pad[c]);
            fill(planes[c] + right, out.w - right, job.pad[c]);
            if (in_place) {
                continue;
            }
            if (out.stride_w == 1) {
                narrow_row(planes[c], out.w, out.dtype, rows[c]);
            } else {
                narrow_row(planes[c], out.w, out.dtype, scratch.narrow);
                copy_elements(rows[c], out.stride_w, scratch.narrow, 1, out.w, size);
            }
        }
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
