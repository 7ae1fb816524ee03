// The arithmetic of one pixel, for host and device alike, so that it can be tested without a GPU.
//
// Fused multiply-adds are written out wherever rounding matters; nothing here depends on whether
// the compiler contracts the rest.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <type_traits>

#define EDGESEG_PIXEL __host__ __device__ __forceinline__

namespace edgeseg::cuda {

// ---- Storage types. Rounding is to nearest even.

EDGESEG_PIXEL float to_float(float value) { return value; }
EDGESEG_PIXEL float to_float(__half value) { return __half2float(value); }
EDGESEG_PIXEL float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
EDGESEG_PIXEL T from_float(float value) {
    if constexpr (std::is_same_v<T, __half>) {
        return __float2half_rn(value);
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        return __float2bfloat16_rn(value);
    } else {
        return value;
    }
}

// ---- Bilinear interpolation.

// Where the pixels of one output axis lie on an input axis of `size` samples: pixel i at
// scale*i + offset, clamped to [0, size-1].
struct Axis {
    double offset;
    double scale;
    int size;
};

// Between sample `index` and the next one; fraction in [0, 1]. The next one exists if size > 1,
// otherwise fraction is 0.
struct Position {
    int index;
    double fraction;
};

EDGESEG_PIXEL Position locate(const Axis& axis, int pixel) {
    const double unclamped = fma(axis.scale, static_cast<double>(pixel), axis.offset);
    const double position = fmin(fmax(unclamped, 0.0), static_cast<double>(axis.size - 1));
    const int last = axis.size > 1 ? axis.size - 2 : 0;
    const int below = static_cast<int>(position);
    const int index = below < last ? below : last;
    return {index, position - index};
}

// (1-t)*a + t*b. Exact at t = 0 and t = 1; no overflow while a and b are finite.
EDGESEG_PIXEL float lerp(float a, float b, float t) { return fmaf(t, b, fmaf(-t, a, a)); }
EDGESEG_PIXEL double lerp(double a, double b, double t) { return fma(t, b, fma(-t, a, a)); }

// The same quantity at the four corners of a cell of the grid.
struct Corners {
    float top_left, top_right, bottom_left, bottom_right;
};

template <typename Real>
EDGESEG_PIXEL Real bilinear(const Corners& corners, Real down, Real right) {
    const Real left = lerp(Real(corners.top_left), Real(corners.bottom_left), down);
    return lerp(left, lerp(Real(corners.top_right), Real(corners.bottom_right), down), right);
}

// ---- Argmax of interpolated logits.

// Class a is at least as good as class b everywhere in the cell, so that b needs no evaluation:
// larger at all corners, or nowhere smaller and the one that wins ties.
EDGESEG_PIXEL bool dominates(const Corners& a, int a_id, const Corners& b, int b_id) {
    if (a_id < b_id) {
        return a.top_left >= b.top_left && a.top_right >= b.top_right &&
               a.bottom_left >= b.bottom_left && a.bottom_right >= b.bottom_right;
    }
    return a.top_left > b.top_left && a.top_right > b.top_right && a.bottom_left > b.bottom_left &&
           a.bottom_right > b.bottom_right;
}

// Two classes whose float32 interpolants lie further apart than this are in their true order.
// With u = 2^-24 and M the largest |logit| at the corners, one lerp adds at most u*M for each of
// its two roundings and u*M for the rounding of t, and averages the errors of its inputs: 6*u*M
// after both axes, 12*u*M = 7.2e-7*M between two classes. FLT_MIN covers subnormal logits.
EDGESEG_PIXEL float ambiguity(float largest_logit) { return fmaf(8e-7f, largest_logit, FLT_MIN); }

// The running best two of a pixel's classes, visited in ascending order: the lowest id wins a tie.
struct BestTwo {
    float best = -INFINITY;
    float second = -INFINITY;
    int label = 0;

    EDGESEG_PIXEL void visit(int id, float value) {
        if (value > best) {
            second = best;
            best = value;
            label = id;
        } else {
            second = fmaxf(second, value);
        }
    }

    // NaN counts as ambiguous.
    EDGESEG_PIXEL bool ambiguous(float tolerance) const { return !(best - second > tolerance); }
};

// Argmax in double precision, for the few pixels where float32 cannot tell. `corners_of(id)` gives
// the corners of a class.
template <typename CornersOf>
EDGESEG_PIXEL int exact_label(const CornersOf& corners_of, int classes, double down, double right) {
    double best = -INFINITY;
    int label = 0;
    for (int id = 0; id < classes; ++id) {
        const double value = bilinear(corners_of(id), down, right);
        if (value > best) {
            best = value;
            label = id;
        }
    }
    return label;
}

// Softmax probability of `label`, the class of the largest logit.
template <typename Logit>
EDGESEG_PIXEL float softmax_of(int label, int classes, const Logit& logit) {
    const float largest = logit(label);
    float sum = 0.0f;
    for (int id = 0; id < classes; ++id) sum += expf(logit(id) - largest);
    return 1.0f / sum;
}

// ---- Colour.

struct Rgb {
    std::uint8_t red, green, blue;
};

EDGESEG_PIXEL std::uint8_t saturate(int value) {
    return static_cast<std::uint8_t>(value < 0 ? 0 : (value > 255 ? 255 : value));
}

// Limited-range BT.601 in 20-bit fixed point, the bits of cv2.COLOR_YUV2BGR_NV12.
EDGESEG_PIXEL Rgb yuv_to_rgb(int luma, int u, int v) {
    constexpr int kHalf = 1 << 19;
    const int y = (luma > 16 ? luma - 16 : 0) * 1220542 + kHalf;  // 1.164
    u -= 128;
    v -= 128;
    return {saturate((y + 1673527 * v) >> 20),              // 1.596
            saturate((y - 852492 * v - 409993 * u) >> 20),  // 0.813, 0.391
            saturate((y + 2116026 * u) >> 20)};             // 2.018
}

// Grey level in 0..255 -> what the network reads.
template <typename T>
EDGESEG_PIXEL T normalized(float grey, float mean, float inverse_std) {
    if constexpr (std::is_same_v<T, std::uint8_t>) {
        return static_cast<std::uint8_t>(grey + 0.5f);
    } else {
        return from_float<T>((grey - mean) * inverse_std);
    }
}

EDGESEG_PIXEL std::uint8_t blended(int grey, int colour, int alpha) {
    return static_cast<std::uint8_t>((grey * (256 - alpha) + colour * alpha + 128) >> 8);
}

}  // namespace edgeseg::cuda
