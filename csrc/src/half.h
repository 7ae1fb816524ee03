// float16 and bfloat16 as their bits, one value at a time.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgeseg {

inline float bits_to_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline std::uint32_t float_to_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000u) << 16;
    const std::uint32_t magnitude = (half & 0x7fffu) << 13;
    // The multiplication moves the exponent bias from 15 to 127 and normalises subnormals.
    const float value = bits_to_float(magnitude) * 0x1p112f;
    const std::uint32_t infinity = (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;
    return bits_to_float(float_to_bits(value) | infinity | sign);
}

inline float bfloat16_to_float(std::uint16_t bits) {
    return bits_to_float(std::uint32_t{bits} << 16);
}

// Rounds to nearest even; what is too large becomes infinity.
inline std::uint16_t float_to_half(float value) {
    const std::uint32_t bits = float_to_bits(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
        // Below the smallest normal number: the adder aligns and rounds the mantissa.
        half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return static_cast<std::uint16_t>(half | sign);
}

inline std::uint16_t float_to_bfloat16(float value) {
    const std::uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    }
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace edgeseg
