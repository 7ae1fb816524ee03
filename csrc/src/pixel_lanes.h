// Interleaved pixels in vectors, once per dispatch level. A pixel takes four lanes, its three
// channels and one unused, so a vector holds kLanes / 4 pixels.
//
//   gather_pixels    the pixels at offsets[0], offsets[4], ... of a line
//   spread_weights   weights[0], weights[4], ..., each in a pixel's four lanes
//   low, high        interleave the lower or upper halves of each group of four lanes of a and b,
//   low_pair, ...    lane by lane or pair by pair; together they transpose four vectors
namespace edgeseg::EDGESEG_LEVEL {

#if EDGESEG_LANES == 16
inline Floats gather_pixels(const float* line, const int* offsets) {
    __m512 pixels = _mm512_castps128_ps512(_mm_loadu_ps(line + offsets[0]));
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(line + offsets[4]), 1);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(line + offsets[8]), 2);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(line + offsets[12]), 3);
    return (Floats)pixels;
}
inline Floats spread_weights(const float* weights) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return (Floats)_mm512_maskz_permutexvar_ps(kAllLanes, lanes, (__m512)load(weights));
}
inline Floats low(Floats a, Floats b) {
    return (Floats)_mm512_maskz_unpacklo_ps(kAllLanes, (__m512)a, (__m512)b);
}
inline Floats high(Floats a, Floats b) {
    return (Floats)_mm512_maskz_unpackhi_ps(kAllLanes, (__m512)a, (__m512)b);
}
inline Floats low_pair(Floats a, Floats b) {
    return (Floats)_mm512_maskz_unpacklo_pd(0xff, (__m512d)a, (__m512d)b);
}
inline Floats high_pair(Floats a, Floats b) {
    return (Floats)_mm512_maskz_unpackhi_pd(0xff, (__m512d)a, (__m512d)b);
}
#elif EDGESEG_LANES == 8
inline Floats gather_pixels(const float* line, const int* offsets) {
    const __m256 pixels = _mm256_castps128_ps256(_mm_loadu_ps(line + offsets[0]));
    return (Floats)_mm256_insertf128_ps(pixels, _mm_loadu_ps(line + offsets[4]), 1);
}
inline Floats spread_weights(const float* weights) {
    const __m256 first = _mm256_castps128_ps256(_mm_broadcast_ss(weights));
    return (Floats)_mm256_insertf128_ps(first, _mm_broadcast_ss(weights + 4), 1);
}
inline Floats low(Floats a, Floats b) { return (Floats)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
inline Floats high(Floats a, Floats b) { return (Floats)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
inline Floats low_pair(Floats a, Floats b) {
    return (Floats)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
inline Floats high_pair(Floats a, Floats b) {
    return (Floats)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}
#else
inline Floats gather_pixels(const float* line, const int* offsets) {
    return load(line + offsets[0]);
}
inline Floats spread_weights(const float* weights) { return broadcast(weights[0]); }
#if defined(__clang__)
#define EDGESEG_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define EDGESEG_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Ints{i, j, k, l})
#endif
inline Floats low(Floats a, Floats b) { return EDGESEG_SHUFFLE(a, b, 0, 4, 1, 5); }
inline Floats high(Floats a, Floats b) { return EDGESEG_SHUFFLE(a, b, 2, 6, 3, 7); }
inline Floats low_pair(Floats a, Floats b) { return EDGESEG_SHUFFLE(a, b, 0, 1, 4, 5); }
inline Floats high_pair(Floats a, Floats b) { return EDGESEG_SHUFFLE(a, b, 2, 3, 6, 7); }
#undef EDGESEG_SHUFFLE
#endif

}  // namespace edgeseg::EDGESEG_LEVEL
