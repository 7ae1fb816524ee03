// The native kernels on CUDA. Same contracts as kernels.h; all pointers are device pointers (or
// host memory that the device can read), work is queued on `stream` and nothing synchronises.
// Errors of a launch are thrown as CudaError; the process lives on.
#pragma once

#include <stdexcept>

#include "edgeseg/kernels.h"
#include "edgeseg/types.h"

namespace edgeseg::cuda {

using Stream = void*;  // cudaStream_t, so that this header needs no CUDA

class CudaError : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

void preprocess(const Frame& frame, const Rect& content, const Normalization& normalization,
                const Tensor& out, Stream stream);
void score_map_concat(const Tensor& features, const float* text, int classes, const Tensor& out,
                      Stream stream);
void upsample_argmax(const Tensor& logits, const RectF& source, bool align_corners,
                     const Labels& labels, float* confidence, Stream stream);
void overlay(const Frame& frame, const std::uint8_t* labels, std::ptrdiff_t label_stride,
             const std::uint8_t* palette, int alpha, std::uint8_t* out, std::ptrdiff_t out_stride,
             Stream stream);

// Devices that the driver shows; 0 without a driver, never an error.
int device_count();
// CUDA runtime that was linked, e.g. 13000.
int runtime_version();
// Architectures compiled in, e.g. "75-real 80-real 90" (from the build).
const char* architectures();

}  // namespace edgeseg::cuda
