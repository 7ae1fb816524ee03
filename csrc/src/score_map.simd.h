// The inner loops of score_map.cpp, compiled once per dispatch level by foreach_level.h.
namespace edgeseg::EDGESEG_LEVEL {

// Pixels of one block: two vectors, so that the products of four classes hide the latency of
// multiply-add.
constexpr int kBlockPixels = 2 * kLanes;

// Scores of kClassGroup classes for one block: sums over channels in chunks, which keeps the
// rounding error of a thousand terms near that of a hundred.
inline void group_dots(const float* features, const float* text, int channels, float* dots) {
    Floats total[kClassGroup][2] = {};
    for (int first = 0; first < channels; first += kChannelChunk) {
        const int last = first + kChannelChunk < channels ? first + kChannelChunk : channels;
        Floats sum[kClassGroup][2] = {};
        for (int c = first; c < last; ++c) {
            const Floats left = load(features + c * kBlockPixels);
            const Floats right = load(features + c * kBlockPixels + kLanes);
            for (int k = 0; k < kClassGroup; ++k) {
                sum[k][0] += left * text[c * kClassGroup + k];
                sum[k][1] += right * text[c * kClassGroup + k];
            }
        }
        for (int k = 0; k < kClassGroup; ++k) {
            total[k][0] += sum[k][0];
            total[k][1] += sum[k][1];
        }
    }
    for (int k = 0; k < kClassGroup; ++k) {
        store(dots + k * kBlockPixels, total[k][0]);
        store(dots + k * kBlockPixels + kLanes, total[k][1]);
    }
}

// Multiplies every pixel by the power of two that brings its largest magnitude to [1, 2). That is
// exact, leaves the cosine as it is, and no square can overflow or vanish.
inline void normalise_scale(float* features, int channels) {
    for (int half = 0; half < kBlockPixels; half += kLanes) {
        Ints peak = {};  // as bits: magnitudes order like integers
        for (int c = 0; c < channels; ++c) {
            const Ints magnitude = (Ints)load(features + c * kBlockPixels + half) & 0x7fffffff;
            peak = magnitude > peak ? magnitude : peak;
        }
        // 2^-exponent; the largest exponent would give 0 and takes the smallest normal number.
        Ints scale = (254 << 23) - (peak & 0x7f800000);
        scale = scale < (1 << 23) ? broadcast(std::int32_t{1 << 23}) : scale;
        for (int c = 0; c < channels; ++c) {
            float* at = features + c * kBlockPixels + half;
            store(at, load(at) * (Floats)scale);
        }
    }
}

inline void squared_norms(const float* features, int channels, float* squares) {
    for (int half = 0; half < kBlockPixels; half += kLanes) {
        Floats total = {};
        for (int first = 0; first < channels; first += kChannelChunk) {
            const int last = first + kChannelChunk < channels ? first + kChannelChunk : channels;
            Floats sum = {};
            for (int c = first; c < last; ++c) {
                const Floats value = load(features + c * kBlockPixels + half);
                sum += value * value;
            }
            total += sum;
        }
        store(squares + half, total);
    }
}

// Copies one block's features to the output and, as float32, to `wide` (channels × kBlockPixels).
// `pixel` has room for all channels of one pixel.
inline void read_block(const ScoreMapJob& job, std::ptrdiff_t from, std::ptrdiff_t to, int pixels,
                       float* wide, float* pixel) {
    const Tensor& in = job.features;
    const Tensor& out = job.out;
    const int size = element_size(in.dtype);
    const char* source = static_cast<const char*>(in.data) + from * size;
    char* target = static_cast<char*>(out.data) + to * size;
    if (in.stride_c == 1) {
        for (int p = 0; p < pixels; ++p) {
            copy_elements(target + p * job.out_step * size, out.stride_c,
                          source + p * job.step * size, 1, in.c, size);
            widen_row(in, from + p * job.step, 1, in.c, pixel);
            for (int c = 0; c < in.c; ++c) {
                wide[c * kBlockPixels + p] = pixel[c];
            }
        }
        return;
    }
    for (int c = 0; c < in.c; ++c) {
        copy_elements(target + c * out.stride_c * size, job.out_step,
                      source + c * in.stride_c * size, job.step, pixels, size);
        widen_row(in, from + c * in.stride_c, job.step, pixels, wide + c * kBlockPixels);
    }
}

inline void write_scores(const ScoreMapJob& job, std::ptrdiff_t to, int pixels, float* wide) {
    const int channels = job.features.c;
    const int size = element_size(job.out.dtype);
    float norms[kBlockPixels], dots[kClassGroup * kBlockPixels];
    squared_norms(wide, channels, norms);
    for (int p = 0; p < kBlockPixels; ++p) {
        norms[p] = __builtin_sqrtf(norms[p]);
    }
    for (int first = 0; first < job.classes; first += kClassGroup) {
        group_dots(wide, job.text + static_cast<std::ptrdiff_t>(first) * channels, channels, dots);
        const int last = first + kClassGroup < job.classes ? first + kClassGroup : job.classes;
        for (int k = first; k < last; ++k) {
            float* scores = dots + (k - first) * kBlockPixels;
            for (int p = 0; p < kBlockPixels; ++p) {
                scores[p] = norms[p] > 0 ? scores[p] / norms[p] : 0;
            }
            char narrow[kBlockPixels * sizeof(float)];
            narrow_row(scores, kBlockPixels, job.out.dtype, narrow);
            char* target =
                static_cast<char*>(job.out.data) + (to + (channels + k) * job.out.stride_c) * size;
            copy_elements(target, job.out_step, narrow, 1, pixels, size);
        }
    }
}

// A run of pixels: `from` and `to` are the elements of its first pixel, channel 0, in features and
// out. `scratch` holds channels * (kMostBlockPixels + 1) floats, zero at the first call.
inline void score_map_run(const ScoreMapJob& job, std::ptrdiff_t from, std::ptrdiff_t to,
                          int pixels, float* scratch) {
    static_assert(kBlockPixels <= kMostBlockPixels);
    float* pixel = scratch + job.features.c * kBlockPixels;
    for (int p = 0; p < pixels; p += kBlockPixels) {
        const int block = kBlockPixels < pixels - p ? kBlockPixels : pixels - p;
        read_block(job, from + p * job.step, to + p * job.out_step, block, scratch, pixel);
        normalise_scale(scratch, job.features.c);
        write_scores(job, to + p * job.out_step, block, scratch);
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
