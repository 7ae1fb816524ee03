// The native kernels on CUDA. Same contracts as kernels.h; all pointers are device pointers (or
// host memory that the device can read), work is queued on `stream` and nothing synchronises.
// Errors of a launch are thrown as CudaError; the process lives on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "edgeseg/export.h"
#include "edgeseg/kernels.h"
#include "edgeseg/types.h"

namespace edgeseg::cuda {

using Stream = void*;  // cudaStream_t, so that this header needs no CUDA

class EDGESEG_API CudaError : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

EDGESEG_API void preprocess(const Frame& frame, const Rect& content,
                            const Normalization& normalization, const Tensor& out, Stream stream);
EDGESEG_API void score_map_concat(const Tensor& features, const float* text, int classes,
                                  const Tensor& out, Stream stream);
EDGESEG_API void upsample_argmax(const Tensor& logits, const RectF& source, bool align_corners,
                                 const Labels& labels, float* confidence, Stream stream);
EDGESEG_API void overlay(const Frame& frame, const std::uint8_t* labels,
                         std::ptrdiff_t label_stride, const std::uint8_t* palette, int alpha,
                         std::uint8_t* out, std::ptrdiff_t out_stride, Stream stream);

// Devices that the driver shows; 0 without a driver, never an error.
EDGESEG_API int device_count();
// CUDA runtime that was linked, e.g. 13000.
EDGESEG_API int runtime_version();
// Architectures compiled in, e.g. "75-real 80-real 90" (from the build).
EDGESEG_API const char* architectures();

}  // namespace edgeseg::cuda
