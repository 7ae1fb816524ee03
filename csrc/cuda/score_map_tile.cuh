// What both forms of score_map_concat share: a block takes a few pixels, its threads divide the
// channels. Features pass through shared memory, where global memory is read and written along its
// contiguous axis, 16 bytes at a time where alignment permits, whatever axis the arithmetic wants.
#pragma once

#include "launch.cuh"
#include "pixel.cuh"

namespace edgeseg::cuda {

constexpr int kWarp = 32;
constexpr int kRunPixels = 8;  // the longest run of pixels that is read at once

template <typename T>
constexpr int kVector = 16 / sizeof(T);

// How the block may touch memory.
struct Access {
    bool features_by_vector, out_by_vector, text_by_vector;
};

// Whether runs of 16 bytes along the layout's contiguous axis are contiguous and aligned for every
// block of pixels. `channels` is the number of channels that are read or written by such runs.
template <typename T>
EDGESEG_PIXEL bool by_vector(const Tensor& tensor, int channels, bool channels_last) {
    const auto aligned = [](std::ptrdiff_t stride) { return stride % kVector<T> == 0; };
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % 16 != 0) return false;
    if (!aligned(tensor.stride_n)) return false;
    if (channels_last) {
        return tensor.stride_c == 1 && channels % kVector<T> == 0 && aligned(tensor.stride_h) &&
               aligned(tensor.stride_w);
    }
    if (tensor.stride_w != 1 || !aligned(tensor.stride_c)) return false;
    const bool whole_rows = tensor.w % kRunPixels == 0 && aligned(tensor.stride_h);
    const bool whole_images =
        tensor.stride_h == tensor.w && std::ptrdiff_t{tensor.h} * tensor.w % kRunPixels == 0;
    return whole_rows || whole_images;
}

template <typename T>
EDGESEG_PIXEL Access access_to(const Tensor& features, const float* text, const Tensor& out,
                               bool channels_last) {
    return {by_vector<T>(features, features.c, channels_last),
            by_vector<T>(out, features.c, channels_last),
            features.c % 4 == 0 && reinterpret_cast<std::uintptr_t>(text) % 16 == 0};
}

// Calls visit(c, p) for every kStep-th channel (channels last) or pixel of the block, neighbouring
// threads on neighbouring addresses.
template <typename Tile, int kStep, typename Visit>
__device__ __forceinline__ void for_each_run(int channels, int pixels, const Visit& visit) {
    const int thread = threadIdx.x, threads = blockDim.x;
    if constexpr (Tile::kChannelsLast) {
        for (int p = 0; p < pixels; ++p) {
#pragma unroll 4
            for (int c = thread * kStep; c < channels; c += threads * kStep) visit(c, p);
        }
    } else {
        constexpr int kLanes = Tile::kPixels / kStep;
        const int p = thread % kLanes * kStep;
        if (p >= pixels) return;
#pragma unroll 8
        for (int c = thread / kLanes; c < channels; c += threads / kLanes) visit(c, p);
    }
}

// What a block works on. A Tile says how many pixels and channels (at a time) that is, and where
// channel c of pixel p stands in shared memory: in the order of global memory.
template <typename T, typename Tile>
struct Block {
    const Tensor& features;
    const float* text;
    const Tensor& out;
    const std::ptrdiff_t* feature_offset;  // of each pixel
    const std::ptrdiff_t* out_offset;
    int pixels;
    int first_class, classes;

    // Fills the arrays of offsets, kPixels each, in shared memory.
    __device__ __forceinline__ Block(const Tensor& from, const float* rows, int all_classes,
                                     const Tensor& to, std::ptrdiff_t* from_offset,
                                     std::ptrdiff_t* to_offset)
        : features(from), text(rows), out(to), feature_offset(from_offset), out_offset(to_offset) {
        const int thread = threadIdx.x, class_blocks = gridDim.y;
        const int share = (all_classes + class_blocks - 1) / class_blocks;
        first_class = blockIdx.y * share;
        const int classes_left = all_classes - first_class;
        classes = classes_left < share ? classes_left : share;

        const std::int64_t first_pixel = static_cast<std::int64_t>(blockIdx.x) * Tile::kPixels;
        const std::int64_t image_size = static_cast<std::int64_t>(from.h) * from.w;
        const std::int64_t pixels_left = from.n * image_size - first_pixel;
        pixels = pixels_left < Tile::kPixels ? static_cast<int>(pixels_left) : Tile::kPixels;
        if (thread < pixels) {
            const std::int64_t pixel = first_pixel + thread;
            const std::int64_t n = pixel / image_size;
            const int in_image = static_cast<int>(pixel - n * image_size);
            const int y = in_image / from.w, x = in_image % from.w;
            from_offset[thread] = n * from.stride_n + y * from.stride_h + x * from.stride_w;
            to_offset[thread] = n * to.stride_n + y * to.stride_h + x * to.stride_w;
        }
        __syncthreads();
    }

    __device__ __forceinline__ const T* pixel(int p) const {
        return static_cast<const T*>(features.data) + feature_offset[p];
    }

    // Global -> shared.
    __device__ __forceinline__ void load(T* tile, int first_channel, int channels,
                                         bool by_vector) const {
        const auto source = [&](int c, int p) {
            return pixel(p) + (first_channel + c) * features.stride_c;
        };
        if (by_vector) {
            for_each_run<Tile, kVector<T>>(channels, pixels, [&](int c, int p) {
                *reinterpret_cast<uint4*>(tile + Tile::index(c, p)) =
                    __ldg(reinterpret_cast<const uint4*>(source(c, p)));
            });
        } else {
            for_each_run<Tile, 1>(channels, pixels, [&](int c, int p) {
                tile[Tile::index(c, p)] = __ldg(source(c, p));
            });
        }
    }

    // Shared -> global: the copy beside which the scores will stand.
    __device__ __forceinline__ void store(const T* tile, int first_channel, int channels,
                                          bool by_vector) const {
        const auto target = [&](int c, int p) {
            return static_cast<T*>(out.data) + out_offset[p] + (first_channel + c) * out.stride_c;
        };
        if (by_vector) {
            for_each_run<Tile, kVector<T>>(channels, pixels, [&](int c, int p) {
                *reinterpret_cast<uint4*>(target(c, p)) =
                    *reinterpret_cast<const uint4*>(tile + Tile::index(c, p));
            });
        } else {
            for_each_run<Tile, 1>(channels, pixels,
                                  [&](int c, int p) { *target(c, p) = tile[Tile::index(c, p)]; });
        }
    }

    // Scores from the sums over all channels: squares(p) and dot(k, p) for class first_class + k.
    template <typename Squares, typename Dot>
    __device__ __forceinline__ void write_scores(const Squares& squares, const Dot& dot) const;
};

__device__ __forceinline__ double warp_sum(double value) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(~0u, value, distance);
    }
    return value;
}

// Whether float32 holds a sum of squares to full precision: it has not overflowed, and squares
// that vanished would not have changed it.
__device__ __forceinline__ bool holds(float squares) {
    return squares >= 1e-30f && squares <= FLT_MAX;
}

template <typename T, typename Tile>
template <typename Squares, typename Dot>
__device__ __forceinline__ void Block<T, Tile>::write_scores(const Squares& squares,
                                                             const Dot& dot) const {
    const int thread = threadIdx.x, threads = blockDim.x;
    const int lane = thread % kWarp, warp = thread / kWarp;
    const auto write = [&](int k, int p, float score) {
        static_cast<T*>(out.data)[out_offset[p] + (features.c + first_class + k) * out.stride_c] =
            from_float<T>(score);
    };
    for (int i = thread; i < classes * Tile::kPixels; i += threads) {
        const int p = i % Tile::kPixels, k = i / Tile::kPixels;
        const float sum = squares(p);
        if (p < pixels && holds(sum)) write(k, p, dot(k, p) / sqrtf(sum));
    }

    // Pixels of zeros, and those whose scale float32 cannot square: a warp each, in double.
    for (int p = warp; p < pixels; p += threads / kWarp) {
        if (holds(squares(p))) continue;
        const T* values = pixel(p);
        double square_sum = 0.0;
        for (int c = lane; c < features.c; c += kWarp) {
            const double value = to_float(values[c * features.stride_c]);
            square_sum += value * value;
        }
        square_sum = warp_sum(square_sum);
        for (int k = 0; k < classes; ++k) {
            const float* row = text + std::ptrdiff_t{first_class + k} * features.c;
            double sum = 0.0;
            for (int c = lane; square_sum > 0.0 && c < features.c; c += kWarp) {
                const double value = to_float(values[c * features.stride_c]);
                sum += value * row[c];
            }
            sum = warp_sum(sum);
            if (lane == 0) write(k, p, square_sum > 0.0 ? float(sum / sqrt(square_sum)) : 0.0f);
        }
    }
}

}  // namespace edgeseg::cuda
