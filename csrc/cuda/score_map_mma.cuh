// score_map_concat on tensor cores: float16 and bfloat16, compute capability 8.0 and later.
//
// Scores are a product of matrices, text (classes × channels) by features (channels × pixels). A
// block takes 16 pixels, 32 bytes of a plane; its warps share out the channels, 16 at a time.
// Float32 text is split into terms of the features' type, so that it keeps its precision; each
// warp splits what it multiplies, once for 16 pixels. Squares are the diagonal of the product of
// the pixels with themselves.
//
// Of 16 pixels × 1024 channels and 19 classes in float16: 32 KiB are read, 33 KiB written, 76 KiB
// of text come from the cache; 64 steps of 116 instructions (sm_80; bfloat16: 103), where the form
// of score_map_fma.cuh needs about 16,800 instructions of a warp. One image of 16×32 pixels is 32
// blocks of 8 warps; two blocks fit a multiprocessor.
#pragma once

#include "score_map_tile.cuh"
#include "tensor_core.cuh"

namespace edgeseg::cuda {

constexpr int kTensorThreads = 256;
constexpr int kTensorWarps = kTensorThreads / kWarp;
constexpr int kClassTile = 16;  // classes, and channels, of one product
constexpr int kClassTiles = 2;  // of a block
constexpr int kTensorClasses = kClassTiles * kClassTile;
constexpr int kTensorPixels = 16;

// Eight rows that are loaded as a matrix lie in different banks: by 16 bytes of padding behind a
// pixel's channels, or by swapping the halves of every other four planes.
template <bool kLast>
struct TensorTile {
    static constexpr bool kChannelsLast = kLast;
    static constexpr int kPixels = kTensorPixels;
    static constexpr int kChannels = 1024;
    static constexpr int kRow = kChannels + 8;
    static constexpr int kSize = kPixels * (kLast ? kRow : kChannels);
    static __device__ __forceinline__ int index(int c, int p) {
        return kLast ? p * kRow + c : c * kPixels + (p ^ (c & 4) << 1);
    }
};

// Terms of 11 or 8 bits that make up a float32. Two of bfloat16 leave at most 2^-18 of a value,
// and a score is then rounded to 2^-9. |text| <= 1 is scaled so that no second term of float16 is
// subnormal.
constexpr int kTerms = 2;
template <typename T>
constexpr float kTextScale = std::is_same_v<T, __half> ? 4096.0f : 1.0f;

template <typename T>
__device__ __forceinline__ std::uint32_t to_pair(float first, float second) {
    std::uint32_t bits;
    if constexpr (std::is_same_v<T, __half>) {
        const __half2 pair = __floats2half2_rn(first, second);
        memcpy(&bits, &pair, sizeof bits);
    } else {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
        memcpy(&bits, &pair, sizeof bits);
    }
    return bits;
}

template <typename T>
__device__ __forceinline__ float2 from_pair(std::uint32_t bits) {
    if constexpr (std::is_same_v<T, __half>) {
        __half2 pair;
        memcpy(&pair, &bits, sizeof bits);
        return __half22float2(pair);
    } else {
        __nv_bfloat162 pair;
        memcpy(&pair, &bits, sizeof bits);
        return __bfloat1622float2(pair);
    }
}

// The whole of a kernel: blocks along x share out the pixels, blocks along y the classes.
template <typename T, bool kChannelsLast>
__device__ __forceinline__ void score_map_concat_mma(const Tensor& features,
                                                     const float* __restrict__ text, int classes,
                                                     const Tensor& out, const Access& access) {
    using Tile = TensorTile<kChannelsLast>;
    using Partial = float[1 + kTensorClasses][kTensorPixels];  // of a warp: squares, then dots
    constexpr int kTileBytes = Tile::kSize * sizeof(T);
    static_assert(kTileBytes >= static_cast<int>(kTensorWarps * sizeof(Partial)));
    alignas(16) __shared__ unsigned char shared[kTileBytes];  // features, at the end sums
    __shared__ std::ptrdiff_t feature_offset[kTensorPixels], out_offset[kTensorPixels];
    T* tile = reinterpret_cast<T*>(shared);
    Partial* partial = reinterpret_cast<Partial*>(shared);
    const Block<T, Tile> block(features, text, classes, out, feature_offset, out_offset);
    const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const int group = lane / 4, pair = lane % 4 * 2;  // the lane's place in a fragment

    // Where the lane's columns of the text begin. Rows beyond the last class repeat it, unused.
    const float* rows[kClassTiles][2];
#pragma unroll
    for (int i = 0; i < 2 * kClassTiles; ++i) {
        const int k = i * 8 + group;
        const int row = block.first_class + (k < block.classes ? k : block.classes - 1);
        rows[i / 2][i % 2] = text + std::ptrdiff_t{row} * features.c + pair;
    }

    float dots[kClassTiles][2][4] = {};  // for the first and the second eight pixels
    float products[2][4] = {};           // of all pixels with those: on the diagonal, squares

    // Adds 16 channels, from `channel` of the tile and `column` of the text on;
    // text_pair(at, column, c) gives the lane's values c and c + 1 from there, `at` in a row.
    const auto add = [&](auto class_tiles, int channel, int column, const auto& text_pair) {
        // Matrices: channels 0..7 and 8..15 of the first eight pixels, then of the others.
        const int line = lane % 8;
        const int c = channel + lane / 8 % 2 * 8 + (kChannelsLast ? 0 : line);
        const int p = lane / 16 * 8 + (kChannelsLast ? line : 0);
        std::uint32_t values[4];
        load_matrices<!kChannelsLast>(values, tile + Tile::index(c, p));
        const std::uint32_t transposed[4] = {values[0], values[2], values[1], values[3]};
        multiply_add<T>(products[0], transposed, values[0], values[1]);
        multiply_add<T>(products[1], transposed, values[2], values[3]);
#pragma unroll
        for (int m = 0; m < decltype(class_tiles)::value; ++m) {
            std::uint32_t terms[kTerms][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float2 rest = text_pair(rows[m][i % 2] + column, column, i / 2 * 8);
                rest.x *= kTextScale<T>;
                rest.y *= kTextScale<T>;
#pragma unroll
                for (int term = 0; term < kTerms; ++term) {
                    terms[term][i] = to_pair<T>(rest.x, rest.y);
                    const float2 held = from_pair<T>(terms[term][i]);
                    rest.x -= held.x;
                    rest.y -= held.y;
                }
            }
#pragma unroll
            for (int term = 0; term < kTerms; ++term) {
                multiply_add<T>(dots[m][0], terms[term], values[0], values[1]);
                multiply_add<T>(dots[m][1], terms[term], values[2], values[3]);
            }
        }
    };
    const auto whole_pair = [](const float* at, int, int c) {
        return __ldg(reinterpret_cast<const float2*>(at + c));
    };
    const auto any_pair = [&](const float* at, int column, int c) {
        const int left = features.c - column - c - pair;
        return float2{left > 0 ? __ldg(at + c) : 0.0f, left > 1 ? __ldg(at + c + 1) : 0.0f};
    };
    const bool whole_pairs = access.text_by_vector && features.c % kClassTile == 0;

    for (int first_channel = 0; first_channel < features.c; first_channel += Tile::kChannels) {
        const int channels_left = features.c - first_channel;
        const int channels = channels_left < Tile::kChannels ? channels_left : Tile::kChannels;
        const int steps = (channels + kClassTile - 1) / kClassTile;
        block.load(tile, first_channel, channels, access.features_by_vector);
        const int beyond = steps * kClassTile - channels;  // zeros, as 0 * NaN is NaN
        for (int i = thread; i < beyond * kTensorPixels; i += kTensorThreads) {
            tile[Tile::index(channels + i / kTensorPixels, i % kTensorPixels)] = from_float<T>(0);
        }
        __syncthreads();
        if (blockIdx.y == 0) block.store(tile, first_channel, channels, access.out_by_vector);

        const auto add_all = [&](auto class_tiles, const auto& text_pair) {
#pragma unroll 1
            for (int c = warp * kClassTile; c < channels; c += kTensorWarps * kClassTile) {
                add(class_tiles, c, first_channel + c, text_pair);
            }
        };
        if (!whole_pairs) {
            add_all(std::integral_constant<int, 2>(), any_pair);
        } else if (block.classes > kClassTile) {
            add_all(std::integral_constant<int, 2>(), whole_pair);
        } else {
            add_all(std::integral_constant<int, 1>(), whole_pair);
        }
        __syncthreads();  // the tile is free again
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (group / 2 == lane % 4) {
            partial[warp][0][half * 8 + group] =
                group % 2 == 0 ? products[half][2 * half] : products[half][2 * half + 1];
        }
#pragma unroll
        for (int m = 0; m < kClassTiles; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int k = m * kClassTile + group + i / 2 * 8;
                partial[warp][1 + k][half * 8 + pair + i % 2] = dots[m][half][i];
            }
        }
    }
    __syncthreads();

    const auto over_warps = [&](int sum, int p) {
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < kTensorWarps; ++i) total += partial[i][sum][p];
        return total;
    };
    block.write_scores([&](int p) { return over_warps(0, p); },
                       [&](int k, int p) { return over_warps(1 + k, p) * (1.0f / kTextScale<T>); });
}

}  // namespace edgeseg::cuda
