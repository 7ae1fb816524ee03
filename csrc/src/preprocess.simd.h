namespace edgeseg::EDGESEG_LEVEL {

// Four lanes at every level: a pixel's three channels and one unused.
typedef float Quad __attribute__((vector_size(16)));
typedef std::int32_t QuadIndex __attribute__((vector_size(16)));

inline Quad load_quad(const float* from) {
    Quad value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

inline void store_quad(float* to, Quad value) { __builtin_memcpy(to, &value, sizeof value); }

#if defined(__clang__)
#define EDGESEG_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define EDGESEG_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, QuadIndex{i, j, k, l})
#endif

// One line of 3*width interleaved bytes, interpolated between two frame rows.
inline void blend_rows(const std::uint8_t* top, const std::uint8_t* bottom, float weight,
                       int samples, float* line) {
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
// multiple of four pixels.
template <bool kInterpolate>
void resample_line(const PreprocessJob& job, const float* line, float* const planes[3]) {
    for (int x = 0; x < job.content.width; x += 4) {
        Quad pixels[4];
        for (int i = 0; i < 4; ++i) {
            const float* at = line + job.left[x + i];
            pixels[i] = load_quad(at);
            if (kInterpolate) {
                pixels[i] += (load_quad(at + 3) - pixels[i]) * job.right_weight[x + i];
            }
        }
        const Quad low01 = EDGESEG_SHUFFLE(pixels[0], pixels[1], 0, 4, 1, 5);
        const Quad low23 = EDGESEG_SHUFFLE(pixels[2], pixels[3], 0, 4, 1, 5);
        const Quad high01 = EDGESEG_SHUFFLE(pixels[0], pixels[1], 2, 6, 3, 7);
        const Quad high23 = EDGESEG_SHUFFLE(pixels[2], pixels[3], 2, 6, 3, 7);
        const Quad channel0 = EDGESEG_SHUFFLE(low01, low23, 0, 1, 4, 5);
        const Quad channel1 = EDGESEG_SHUFFLE(low01, low23, 2, 3, 6, 7);
        const Quad channel2 = EDGESEG_SHUFFLE(high01, high23, 0, 1, 4, 5);
        store_quad(planes[0] + x, channel0 * job.scale[0] + job.shift[0]);
        store_quad(planes[1] + x, channel1 * job.scale[1] + job.shift[1]);
        store_quad(planes[2] + x, channel2 * job.scale[2] + job.shift[2]);
    }
}
#undef EDGESEG_SHUFFLE

// Limited-range BT.601 in OpenCV's fixed point, bit for bit.
inline void nv12_row_to_rgb(const Frame& frame, int y, std::uint8_t* rgb) {
    const std::uint8_t* luma = frame.data + y * frame.row_stride;
    const std::uint8_t* chroma = frame.data + (frame.height + y / 2) * frame.row_stride;
    for (int x = 0; x < frame.width; ++x) {
        const int u = chroma[x & ~1] - 128;
        const int v = chroma[x | 1] - 128;
        const int above_black = luma[x] > 16 ? luma[x] - 16 : 0;
        const int grey = above_black * 1220542 + (1 << 19);
        const int channels[3] = {(grey + 1673527 * v) >> 20, (grey - 409993 * u - 852492 * v) >> 20,
                                 (grey + 2116026 * u) >> 20};
        for (int c = 0; c < 3; ++c) {
            const int value = channels[c];
            rgb[3 * x + c] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

// The frame's row y, interleaved; converted into `buffer` if the frame is NV12.
inline const std::uint8_t* interleaved_row(const Frame& frame, int y,
                                           PreprocessScratch::Row& buffer) {
    if (frame.format != PixelFormat::nv12) {
        return frame.data + y * frame.row_stride;
    }
    if (buffer.number != y) {
        nv12_row_to_rgb(frame, y, buffer.samples);
        buffer.number = y;
    }
    return buffer.samples;
}

// Output rows first..last-1.
inline void preprocess_rows(const PreprocessJob& job, int first, int last,
                            PreprocessScratch& scratch) {
    const Tensor& out = job.out;
    const int size = element_size(out.dtype);
    // float32 planes are written in place, everything else through `scratch.planes`.
    const bool in_place =
        out.dtype == DType::float32 && out.stride_w == 1 && job.content.width % 4 == 0;
    for (int y = first; y < last; ++y) {
        float* planes[3];  // of R, G, B
        for (int c = 0; c < 3; ++c) {
            planes[c] = in_place
                            ? static_cast<float*>(out.data) + c * out.stride_c + y * out.stride_h
                            : scratch.planes[c];
        }
        const int row = y - job.content.y;
        const bool inside = row >= 0 && row < job.content.height;
        if (inside) {
            const RowTaps& taps = job.rows[row];
            const std::uint8_t* top =
                interleaved_row(job.frame, taps.top, scratch.rgb[taps.top & 1]);
            const std::uint8_t* bottom =
                taps.weight == 0
                    ? top
                    : interleaved_row(job.frame, taps.bottom, scratch.rgb[taps.bottom & 1]);
            blend_rows(top, bottom, taps.weight, 3 * job.frame.width, scratch.line);
            const int red = job.frame.format == PixelFormat::bgr ? 2 : 0;
            float* const content[3] = {planes[red] + job.content.x, planes[1] + job.content.x,
                                       planes[2 - red] + job.content.x};
            if (job.interpolate_columns) {
                resample_line<true>(job, scratch.line, content);
            } else {
                resample_line<false>(job, scratch.line, content);
            }
        }
        for (int c = 0; c < 3; ++c) {
            const int right = inside ? job.content.x + job.content.width : 0;
            for (int x = 0; inside && x < job.content.x; ++x) {
                planes[c][x] = job.pad[c];
            }
            for (int x = right; x < out.w; ++x) {
                planes[c][x] = job.pad[c];
            }
            if (!in_place) {
                narrow_row(planes[c], out.w, out.dtype, scratch.narrow);
                char* target =
                    static_cast<char*>(out.data) + (c * out.stride_c + y * out.stride_h) * size;
                copy_elements(target, out.stride_w, scratch.narrow, 1, out.w, size);
            }
        }
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
