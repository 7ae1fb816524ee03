// Vectors of EDGESEG_LANES float32 lanes in the compiler's own vector types (GCC and Clang), and
// rows of tensor elements to and from float32. Included once per dispatch level by
// foreach_level.h.
namespace edgeseg::EDGESEG_LEVEL {

constexpr int kLanes = EDGESEG_LANES;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));  // also masks: 0 or -1
typedef std::uint32_t UInts __attribute__((vector_size(4 * kLanes)));
typedef std::uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));

inline Floats load(const float* from) {
    Floats value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof value); }

inline Floats broadcast(float value) { return value - Floats{}; }

inline Ints broadcast(std::int32_t value) { return value - Ints{}; }

#if EDGESEG_LANES == 16
// GCC 12 warns of uninitialised values inside the unmasked conversions.
constexpr __mmask16 kAllLanes = 0xffff;
#endif

inline Floats widen_half(const std::uint16_t* from) {
#if EDGESEG_LANES == 16
    return (Floats)_mm512_maskz_cvtph_ps(
        kAllLanes, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif EDGESEG_LANES == 8
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__aarch64__)
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    Floats value;
    for (int i = 0; i < kLanes; ++i) {
        value[i] = half_to_float(from[i]);
    }
    return value;
#endif
}

inline void narrow_half(std::uint16_t* to, Floats value) {
#if EDGESEG_LANES == 16
    const __m256i half = _mm512_maskz_cvtps_ph(kAllLanes, (__m512)value, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
#elif EDGESEG_LANES == 8
    const __m128i half = _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
#elif defined(__aarch64__)
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value)));
#else
    for (int i = 0; i < kLanes; ++i) {
        to[i] = float_to_half(value[i]);
    }
#endif
}

template <int kSize>
void copy_strided(char* to, std::ptrdiff_t to_step, const char* from, std::ptrdiff_t from_step,
                  int count) {
    for (int i = 0; i < count; ++i) {
        __builtin_memcpy(to + i * to_step * kSize, from + i * from_step * kSize, kSize);
    }
}

inline int element_size(DType dtype) {
    return dtype == DType::float32 ? 4 : dtype == DType::uint8 ? 1 : 2;
}

// Copies `count` elements of `size` bytes (1, 2 or 4); steps are in elements.
inline void copy_elements(void* to, std::ptrdiff_t to_step, const void* from,
                          std::ptrdiff_t from_step, int count, int size) {
    char* target = static_cast<char*>(to);
    const char* source = static_cast<const char*>(from);
    if (to_step == 1 && from_step == 1) {
        __builtin_memcpy(target, source, static_cast<std::size_t>(count * size));
    } else if (size == 4) {
        copy_strided<4>(target, to_step, source, from_step, count);
    } else if (size == 2) {
        copy_strided<2>(target, to_step, source, from_step, count);
    } else {
        copy_strided<1>(target, to_step, source, from_step, count);
    }
}

// Reads `count` elements of a float tensor from element `offset` on, `stride` elements apart.
inline void widen_row(const Tensor& tensor, std::ptrdiff_t offset, std::ptrdiff_t stride, int count,
                      float* to) {
    if (tensor.dtype == DType::float32) {
        const float* from = static_cast<const float*>(tensor.data) + offset;
        if (stride == 1) {
            __builtin_memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
            return;
        }
        for (int i = 0; i < count; ++i) {
            to[i] = from[i * stride];
        }
        return;
    }
    const std::uint16_t* from = static_cast<const std::uint16_t*>(tensor.data) + offset;
    if (tensor.dtype == DType::bfloat16) {
        for (int i = 0; i < count; ++i) {
            to[i] = bfloat16_to_float(from[i * stride]);
        }
        return;
    }
    int i = 0;
    if (stride == 1) {
        for (; i + kLanes <= count; i += kLanes) {
            store(to + i, widen_half(from + i));
        }
    }
    for (; i < count; ++i) {
        to[i] = half_to_float(from[i * stride]);
    }
}

// Rounds `count` floats to the tensor's dtype, to nearest even, contiguously. A uint8 is rounded
// half up and must lie in 0..255.
inline void narrow_row(const float* from, int count, DType dtype, void* to) {
    if (dtype == DType::float32) {
        __builtin_memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    } else if (dtype == DType::uint8) {
        std::uint8_t* bytes = static_cast<std::uint8_t*>(to);
        for (int i = 0; i < count; ++i) {
            bytes[i] = static_cast<std::uint8_t>(static_cast<int>(from[i] + 0.5f));
        }
    } else if (dtype == DType::bfloat16) {
        std::uint16_t* halves = static_cast<std::uint16_t*>(to);
        for (int i = 0; i < count; ++i) {
            halves[i] = float_to_bfloat16(from[i]);
        }
    } else {
        std::uint16_t* halves = static_cast<std::uint16_t*>(to);
        int i = 0;
        for (; i + kLanes <= count; i += kLanes) {
            narrow_half(halves + i, load(from + i));
        }
        for (; i < count; ++i) {
            halves[i] = float_to_half(from[i]);
        }
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
