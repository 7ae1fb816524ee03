// score_map_concat in float32 arithmetic: any type, any GPU.
//
// Feature maps at stride 32 are small (512 pixels × 1024 channels), so a block takes only eight
// pixels, and its threads divide the channels: each holds 8 channels × 8 pixels in registers,
// reads its 8 columns of the text matrix once per class, and the warp adds up.
#pragma once

#include "score_map_tile.cuh"

namespace edgeseg::cuda {

constexpr int kRun = 8;           // neighbouring channels of a thread
constexpr int kMaxThreads = 128;  // 1024 channels at a time, the network's own number
constexpr int kMaxSums = 32;      // sums per pixel of a block: the norm, then 31 classes

// Channels first, each thread's 64 values get 16 bytes of padding, which spreads them over the
// banks.
template <typename T, bool kLast>
struct RegisterTile {
    static constexpr bool kChannelsLast = kLast;
    static constexpr int kPixels = 8;
    static constexpr int kChannels = kMaxThreads * kRun;
    static constexpr int kSize = kMaxThreads * (kRun * kPixels + kVector<T>);
    static __device__ __forceinline__ int index(int c, int p) {
        return kLast ? p * kChannels + c : c * kPixels + p + c / kRun * kVector<T>;
    }
};

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

// The whole of a kernel: blocks along x share out the pixels, blocks along y the classes.
template <typename T, bool kChannelsLast>
__device__ __forceinline__ void score_map_concat_fma(const Tensor& features,
                                                     const float* __restrict__ text, int classes,
                                                     const Tensor& out, const Access& access) {
    using Tile = RegisterTile<T, kChannelsLast>;
    constexpr int kPixels = Tile::kPixels;
    constexpr int kGroup = kWarp / kPixels;  // sums per pixel that a warp adds up in one go
    alignas(16) __shared__ T tile[Tile::kSize];
    __shared__ float partial[kMaxThreads / kWarp][kMaxSums * kPixels];
    __shared__ std::ptrdiff_t feature_offset[kPixels], out_offset[kPixels];
    const Block<T, Tile> block(features, text, classes, out, feature_offset, out_offset);
    const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const int sums = 1 + block.classes;

    for (int first_channel = 0; first_channel < features.c; first_channel += blockDim.x * kRun) {
        const int channels_left = features.c - first_channel;
        const int block_channels = static_cast<int>(blockDim.x) * kRun;
        const int channels = channels_left < block_channels ? channels_left : block_channels;
        block.load(tile, first_channel, channels, access.features_by_vector);
        __syncthreads();
        if (blockIdx.y == 0) block.store(tile, first_channel, channels, access.out_by_vector);

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
            const T* source = tile + Tile::index(own_channel + c, p);
            alignas(16) T vector[kVector<T>];
            *reinterpret_cast<uint4*>(vector) = *reinterpret_cast<const uint4*>(source);
#pragma unroll
            for (int j = 0; j < kVector<T>; ++j) {
                const int cj = kChannelsLast ? c + j : c, pj = kChannelsLast ? p : p + j;
                values[cj][pj] = cj < own && pj < block.pixels ? to_float(vector[j]) : 0.0f;
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
                    const float* row = text +
                                       std::ptrdiff_t{block.first_class + sum - 1} * features.c +
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
    block.write_scores([&](int p) { return over_warps(0, p); },
                       [&](int k, int p) { return over_warps(1 + k, p); });
}

}  // namespace edgeseg::cuda
