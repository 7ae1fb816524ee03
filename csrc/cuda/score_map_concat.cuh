// Features and their cosine scores with every class, side by side.
//
// Feature maps at stride 32 are small (512 pixels × 1024 channels), so a block takes only eight
// pixels, and its threads divide the channels: each holds 8 channels × 8 pixels in registers,
// reads its 8 columns of the text matrix once per class, and the warp adds up. Features pass
// through shared memory, where global memory is read and written along its contiguous axis,
// 16 bytes at a time where alignment permits, whatever axis the arithmetic wants.
#pragma once

#include "launch.cuh"
#include "pixel.cuh"

namespace edgeseg::cuda {

constexpr int kWarp = 32;
constexpr int kPixels = 8;        // pixels of a block
constexpr int kRun = 8;           // neighbouring channels of a thread
constexpr int kMaxThreads = 128;  // 1024 channels at a time, the network's own number
constexpr int kMaxChannels = kMaxThreads * kRun;
constexpr int kGroup = kWarp / kPixels;  // sums per pixel that a warp adds up in one go
constexpr int kMaxSums = 32;             // sums per pixel of a block: the norm, then 31 classes

template <typename T>
constexpr int kVector = 16 / sizeof(T);

// Where channel c of pixel p stands in shared memory: in the order of global memory. Channels
// first, each thread's 64 values get 16 bytes of padding, which spreads them over the banks.
template <typename T, bool kChannelsLast>
__device__ __forceinline__ int tile_index(int c, int p) {
    return kChannelsLast ? p * kMaxChannels + c : c * kPixels + p + c / kRun * kVector<T>;
}

template <typename T>
constexpr int kTileSize = kMaxThreads * (kRun * kPixels + kVector<T>);

// Calls visit(c, p) for every kStep-th channel (channels last) or pixel of the block, neighbouring
// threads on neighbouring addresses.
template <bool kChannelsLast, int kStep, typename Visit>
__device__ __forceinline__ void for_each_run(int channels, int pixels, const Visit& visit) {
    const int thread = threadIdx.x, threads = blockDim.x;
    if constexpr (kChannelsLast) {
        for (int p = 0; p < pixels; ++p) {
#pragma unroll 4
            for (int c = thread * kStep; c < channels; c += threads * kStep) visit(c, p);
        }
    } else {
        constexpr int kLanes = kPixels / kStep;
        const int p = thread % kLanes * kStep;
        if (p >= pixels) return;
#pragma unroll 8
        for (int c = thread / kLanes; c < channels; c += threads / kLanes) visit(c, p);
    }
}

// Returns in lane i the sum over the warp of values[i]: five times, each half of the lanes hands
// the other half what that one keeps, and half of the values remain. A template, so that every
// index is a constant and the values stay in registers.
template <int kKept = kWarp / 2>
__device__ __forceinline__ float warp_transpose_sum(float (&values)[kWarp]) {
    if constexpr (kKept == 0) {
        return values[0];
    } else {
        const bool upper = threadIdx.x & kKept;
#pragma unroll
        for (int i = 0; i < kKept; ++i) {
            const float kept = upper ? values[i + kKept] : values[i];
            const float given = upper ? values[i] : values[i + kKept];
            values[i] = kept + __shfl_xor_sync(~0u, given, kKept);
        }
        return warp_transpose_sum<kKept / 2>(values);
    }
}

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
    const bool whole_rows = tensor.w % kPixels == 0 && aligned(tensor.stride_h);
    const bool whole_images =
        tensor.stride_h == tensor.w && std::ptrdiff_t{tensor.h} * tensor.w % kPixels == 0;
    return whole_rows || whole_images;
}

template <typename T>
EDGESEG_PIXEL Access access_to(const Tensor& features, const float* text, const Tensor& out,
                               bool channels_last) {
    return {by_vector<T>(features, features.c, channels_last),
            by_vector<T>(out, features.c, channels_last),
            features.c % 4 == 0 && reinterpret_cast<std::uintptr_t>(text) % 16 == 0};
}

// The whole of a kernel: blocks along x share out the pixels, blocks along y the classes.
template <typename T, bool kChannelsLast>
__device__ __forceinline__ void score_map_concat_block(const Tensor& features,
                                                       const float* __restrict__ text, int classes,
                                                       const Tensor& out, const Access& access) {
    alignas(16) __shared__ T tile[kTileSize<T>];
    __shared__ float partial[kMaxThreads / kWarp][kMaxSums * kPixels];
    __shared__ std::ptrdiff_t feature_offset[kPixels], out_offset[kPixels];

    const T* __restrict__ from = static_cast<const T*>(features.data);
    T* __restrict__ to = static_cast<T*>(out.data);
    const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const std::int64_t first_pixel = static_cast<std::int64_t>(blockIdx.x) * kPixels;
    const std::int64_t image_size = static_cast<std::int64_t>(features.h) * features.w;
    const std::int64_t pixels_left = features.n * image_size - first_pixel;
    const int pixels = pixels_left < kPixels ? static_cast<int>(pixels_left) : kPixels;
    const int class_blocks = gridDim.y;
    const int classes_per_block = (classes + class_blocks - 1) / class_blocks;
    const int first_class = blockIdx.y * classes_per_block;
    const int classes_left = classes - first_class;
    const int sums = 1 + (classes_left < classes_per_block ? classes_left : classes_per_block);

    if (thread < pixels) {
        const std::int64_t pixel = first_pixel + thread;
        const std::int64_t n = pixel / image_size;
        const int in_image = static_cast<int>(pixel - n * image_size);
        const int y = in_image / features.w, x = in_image % features.w;
        feature_offset[thread] =
            n * features.stride_n + y * features.stride_h + x * features.stride_w;
        out_offset[thread] = n * out.stride_n + y * out.stride_h + x * out.stride_w;
    }
    __syncthreads();

    for (int first_channel = 0; first_channel < features.c; first_channel += blockDim.x * kRun) {
        const int channels_left = features.c - first_channel;
        const int block_channels = static_cast<int>(blockDim.x) * kRun;
        const int channels = channels_left < block_channels ? channels_left : block_channels;

        // Global -> shared.
        const auto feature = [&](int c, int p) {
            return from + feature_offset[p] + (first_channel + c) * features.stride_c;
        };
        if (access.features_by_vector) {
            for_each_run<kChannelsLast, kVector<T>>(channels, pixels, [&](int c, int p) {
                *reinterpret_cast<uint4*>(tile + tile_index<T, kChannelsLast>(c, p)) =
                    __ldg(reinterpret_cast<const uint4*>(feature(c, p)));
            });
        } else {
            for_each_run<kChannelsLast, 1>(channels, pixels, [&](int c, int p) {
                tile[tile_index<T, kChannelsLast>(c, p)] = __ldg(feature(c, p));
            });
        }
        __syncthreads();

        // Shared -> global: the copy beside which the scores will stand.
        const auto copy = [&](int c, int p) {
            return to + out_offset[p] + (first_channel + c) * out.stride_c;
        };
        if (blockIdx.y == 0 && access.out_by_vector) {
            for_each_run<kChannelsLast, kVector<T>>(channels, pixels, [&](int c, int p) {
                *reinterpret_cast<uint4*>(copy(c, p)) =
                    *reinterpret_cast<const uint4*>(tile + tile_index<T, kChannelsLast>(c, p));
            });
        } else if (blockIdx.y == 0) {
            for_each_run<kChannelsLast, 1>(channels, pixels, [&](int c, int p) {
                *copy(c, p) = tile[tile_index<T, kChannelsLast>(c, p)];
            });
        }

        // Shared -> registers. Channels beyond the last and pixels beyond the last count as 0.
        const int own_channel = thread * kRun;
        const int own_left = channels - own_channel;
        const int own = own_left < 0 ? 0 : (own_left < kRun ? own_left : kRun);
        float values[kRun][kPixels];
#pragma unroll
        for (int i = 0; i < kRun * kPixels; i += kVector<T>) {
            // Along the tile's contiguous axis.
            const int c = kChannelsLast ? i % kRun : i / kPixels;
            const int p = kChannelsLast ? i / kRun : i % kPixels;
            const T* source = tile + tile_index<T, kChannelsLast>(own_channel + c, p);
            alignas(16) T vector[kVector<T>];
            *reinterpret_cast<uint4*>(vector) = *reinterpret_cast<const uint4*>(source);
#pragma unroll
            for (int j = 0; j < kVector<T>; ++j) {
                const int cj = kChannelsLast ? c + j : c, pj = kChannelsLast ? p : p + j;
                values[cj][pj] = cj < own && pj < pixels ? to_float(vector[j]) : 0.0f;
            }
        }

        for (int group = 0; group * kGroup < sums; ++group) {
            float group_sums[kWarp];
#pragma unroll
            for (int member = 0; member < kGroup; ++member) {
                const int sum = group * kGroup + member;
                float* pixel_sums = group_sums + member * kPixels;
                if (sum == 0) {
#pragma unroll
                    for (int p = 0; p < kPixels; ++p) {
                        float squares = 0.0f;
#pragma unroll
                        for (int c = 0; c < kRun; ++c) {
                            squares = fmaf(values[c][p], values[c][p], squares);
                        }
                        pixel_sums[p] = squares;
                    }
                    continue;
                }
                float weights[kRun] = {};
                if (sum < sums) {
                    const float* row = text + std::ptrdiff_t{first_class + sum - 1} * features.c +
                                       first_channel + own_channel;
                    if (own == kRun && access.text_by_vector) {
#pragma unroll
                        for (int c = 0; c < kRun; c += 4) {
                            const float4 four = __ldg(reinterpret_cast<const float4*>(row + c));
                            weights[c] = four.x;
                            weights[c + 1] = four.y;
                            weights[c + 2] = four.z;
                            weights[c + 3] = four.w;
                        }
                    } else {
#pragma unroll
                        for (int c = 0; c < kRun; ++c) {
                            if (c < own) weights[c] = __ldg(row + c);
                        }
                    }
                }
#pragma unroll
                for (int p = 0; p < kPixels; ++p) {
                    float dot = 0.0f;
#pragma unroll
                    for (int c = 0; c < kRun; ++c) dot = fmaf(values[c][p], weights[c], dot);
                    pixel_sums[p] = dot;
                }
            }
            const float total = warp_transpose_sum(group_sums);
            float& slot = partial[warp][group * kWarp + lane];
            slot = first_channel == 0 ? total : slot + total;
        }
        __syncthreads();  // the sums are complete, and the tile is free again
    }

    const auto over_warps = [&](int sum, int p) {
        float total = 0.0f;
        for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) {
            total += partial[i][sum * kPixels + p];
        }
        return total;
    };
    const auto write_score = [&](int k, int p, float score) {
        to[out_offset[p] + (features.c + k) * out.stride_c] = from_float<T>(score);
    };
    for (int i = thread; i < (sums - 1) * kPixels; i += blockDim.x) {
        const int p = i % kPixels, sum = 1 + i / kPixels;
        const float squares = over_warps(0, p);
        if (p < pixels && holds(squares)) {
            write_score(first_class + sum - 1, p, over_warps(sum, p) / sqrtf(squares));
        }
    }

    // Pixels of zeros, and those whose scale float32 cannot square: a warp each, in double.
    for (int p = warp; p < pixels; p += blockDim.x / kWarp) {
        if (holds(over_warps(0, p))) continue;
        const T* pixel = from + feature_offset[p];
        double squares = 0.0;
        for (int c = lane; c < features.c; c += kWarp) {
            const double value = to_float(pixel[c * features.stride_c]);
            squares += value * value;
        }
        squares = warp_sum(squares);
        for (int k = first_class; k < first_class + sums - 1; ++k) {
            double dot = 0.0;
            for (int c = lane; squares > 0.0 && c < features.c; c += kWarp) {
                const double value = to_float(pixel[c * features.stride_c]);
                dot += value * text[std::ptrdiff_t{k} * features.c + c];
            }
            dot = warp_sum(dot);
            if (lane == 0) write_score(k, p, squares > 0.0 ? float(dot / sqrt(squares)) : 0.0f);
        }
    }
}

}  // namespace edgeseg::cuda
