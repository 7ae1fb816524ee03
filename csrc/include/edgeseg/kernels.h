// The native kernels, CPU. Contracts; the CUDA twins in cuda.h follow the same ones.
//
// Nothing is validated here. Shapes (every dimension 1 to kMostExtent) and pointers (aligned to
// their elements) are checked by the caller, as bindings.cpp does, which can name the argument in
// its message. Inputs are only read. `threads` >= 1 is the number of threads that work, the calling
// one included; results do not depend on it. Any number of threads may call at once. std::bad_alloc
// is all that is thrown; the outputs then hold anything.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeseg/export.h"
#include "edgeseg/types.h"

namespace edgeseg {

// Frame -> normalised network input, one pass.
//
// The frame is resized to `content` (a rectangle inside the output: the whole output for "stretch",
// a centred part for "letterbox") by bilinear interpolation with half-pixel centres and no
// antialiasing, in float32: within one grey level of cv2.resize(INTER_LINEAR). Samples outside the
// frame repeat its border. NV12 is converted tap by tap to whole grey levels, before interpolation.
// Outside `content` every channel holds the value that `pad` (0..255) is normalised to.
//
//   out    1×3×h×w, channels R,G,B; float32, float16, bfloat16: (grey - mean[c]) / std[c], with
//          grey in 0..255 and mean, std in grey levels; round to nearest even.
//          uint8: grey rounded half up, mean and std ignored (the engine normalises).
//          Any strides: NCHW and NHWC alike.
struct Normalization {
    float mean[3];  // R,G,B, in 0..255
    float std[3];
    float pad;
};
EDGESEG_API void preprocess(const Frame& frame, const Rect& content,
                            const Normalization& normalization, const Tensor& out, int threads);

// Cosine score map of every pixel with every class, beside the features.
//
//   features  N×C×H×W float32, float16 or bfloat16, any strides; N·H·W <= kMostPieces
//   text      K×C float32, rows of unit length
//   out       N×(C+K)×H×W, dtype of `features`, any strides:
//             out[:, :C] = features, bit for bit
//             out[:, C+k] = <f, text[k]> / ‖f‖
// Accumulates in float32 with the sums arranged so that |f| up to 65504 in every channel cannot
// overflow; the norm is never rounded to the storage type. ‖f‖ = 0 gives score 0, never NaN.
// Features are finite.
EDGESEG_API void score_map_concat(const Tensor& features, const float* text, int classes,
                                  const Tensor& out, int threads);

// Logits -> labels at any size: bilinear interpolation, then argmax over classes, without the
// K×H×W tensor in between.
//
//   logits      N×K×h×w, 1 <= K <= 254, float32, float16 or bfloat16, any strides,
//               |logit| < 1e38
//   source      the part of the logit grid that the labels cover. Label row Y of H samples
//                 align_corners = false:  y + (Y + 0.5) * height / H - 0.5  whole: {0, 0, h, w}
//                 align_corners = true:   y + Y * height / (H - 1)          whole: {0, 0, h-1, w-1}
//               (y for H = 1), clamped to [0, h-1]; columns likewise.
//   labels      N×H×W uint8, rows contiguous; N·H <= kMostPieces
//   confidence  null, or N×H×W float32 contiguous: softmax probability of the label at that pixel
//
// Equals the same computation in double precision with the lowest id on a tie. Where the two best
// classes differ by less than 16 float32 ulps of the largest |logit| at the four corners, either id
// may be given; on logits equal at all four corners the lowest id is given, always.
// Larger and non-finite logits give some id in 0..K-1.
struct Labels {
    std::uint8_t* data;
    int n, height, width;
    std::ptrdiff_t row_stride;    // bytes
    std::ptrdiff_t image_stride;  // bytes
};
EDGESEG_API void upsample_argmax(const Tensor& logits, const RectF& source, bool align_corners,
                                 const Labels& labels, float* confidence, int threads);

// Colours blended over a frame.
//
//   frame    bgr or rgb
//   labels   H×W uint8, the frame's size; 255 leaves the frame's pixel as it is
//   palette  256×3 uint8 in the frame's channel order
//   out      H×W×3 uint8, row_stride in bytes; may be the frame itself
//   alpha    0..256, weight of the colour: out = (frame*(256-alpha) + colour*alpha + 128) >> 8
EDGESEG_API void overlay(const Frame& frame, const std::uint8_t* labels,
                         std::ptrdiff_t label_stride, const std::uint8_t* palette, int alpha,
                         std::uint8_t* out, std::ptrdiff_t out_stride, int threads);

// "baseline", "avx2", "avx512", "neon": what this machine can run and the build contains, slowest
// first, null-terminated.
EDGESEG_API const char* const* dispatch_levels();
// The level in use: the best one, unless set_dispatch_level chose another (for tests and
// benchmarks). set_dispatch_level returns false for a level that cannot run here.
EDGESEG_API const char* dispatch_level();
EDGESEG_API bool set_dispatch_level(const char* name);

}  // namespace edgeseg
