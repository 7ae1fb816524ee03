#pragma once
#include "edgeseg/types.h"
#include "half.h"
namespace edgeseg {
inline float load(const Tensor& t, std::ptrdiff_t i) {
    switch (t.dtype) {
        case DType::float32: return static_cast<const float*>(t.data)[i];
        case DType::float16: return half_to_float(static_cast<const std::uint16_t*>(t.data)[i]);
        case DType::bfloat16: return bfloat16_to_float(static_cast<const std::uint16_t*>(t.data)[i]);
        default: return static_cast<const std::uint8_t*>(t.data)[i];
    }
}
inline void store(const Tensor& t, std::ptrdiff_t i, float v) {
    switch (t.dtype) {
        case DType::float32: static_cast<float*>(t.data)[i] = v; break;
        case DType::float16: static_cast<std::uint16_t*>(t.data)[i] = float_to_half(v); break;
        case DType::bfloat16: static_cast<std::uint16_t*>(t.data)[i] = float_to_bfloat16(v); break;
        default: static_cast<std::uint8_t*>(t.data)[i] = static_cast<std::uint8_t>(v + 0.5f);
    }
}
}
