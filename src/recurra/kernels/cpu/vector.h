// Vectors of float and double, as wide as the target's registers.
//
// This header, like all that includes it, is compiled once per CPU target with that target's flags, in a namespace of
// its own. Nothing here may be shared with the translation units of other targets: no std:: template that leaves code
// behind, or the linker could keep the copy with instructions that the machine lacks.
//
// Products are fused only where fma() says so (the compiler is told -ffp-contract=off), so that a sum has the same bits
// in every kernel that makes it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef RECURRA_TARGET
#error "RECURRA_TARGET names the namespace of this target"
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define ALWAYS_INLINE_LAMBDA __attribute__((always_inline))

namespace recurra::RECURRA_TARGET {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int BYTES = 64;
constexpr int REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
constexpr int REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16;
constexpr int REGISTERS = 32;
#else
constexpr int BYTES = 16;
constexpr int REGISTERS = 16;
#endif

typedef float F32 __attribute__((vector_size(BYTES)));
typedef double F64 __attribute__((vector_size(BYTES)));
typedef int32_t I32 __attribute__((vector_size(BYTES)));
typedef int64_t I64 __attribute__((vector_size(BYTES)));

template <class T>
struct Of;  // the vector of a number, and the integers as wide as its lanes
template <>
struct Of<float> {
    typedef F32 V;
    typedef I32 I;
    typedef int32_t Int;
};
template <>
struct Of<double> {
    typedef F64 V;
    typedef I64 I;
    typedef int64_t Int;
};
template <class T>
using Vec = typename Of<T>::V;
template <class T>
using IVec = typename Of<T>::I;
template <class T>
constexpr int LANES = BYTES / int(sizeof(T));

template <class T>
ALWAYS_INLINE Vec<T> splat(T x) {
    return x - Vec<T>{};  // x - 0 is x, bit for bit, signed zeros and NaN too
}

template <class T>
ALWAYS_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
ALWAYS_INLINE void store(T* p, Vec<T> v) {
    memcpy(p, &v, sizeof v);
}

// Weights may lie in memory in fewer bits than they are computed with: as the upper half of a float, or as integers that a
// factor a row scales.
struct BFloat16 {
    uint16_t upper;
};

ALWAYS_INLINE BFloat16 rounded(float x) {  // to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return {uint16_t((bits >> 16) | 64)};  // NaN stays NaN
    return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Two vectors of weights of a row of a panel, or the first alone. `row` counts from a row where a new load begins.
template <class T>
struct Loaded {
    const T* from;
    explicit Loaded(const T* p) : from(p) {}
    ALWAYS_INLINE Vec<T> first(int) const { return load(from); }
    ALWAYS_INLINE Vec<T> second(int) const { return load(from + LANES<T>); }
};

typedef uint32_t U32 __attribute__((vector_size(BYTES)));

// The numbers of two vectors lie in pairs, the second in the upper halves: a shift and a mask part them.
template <>
struct Loaded<BFloat16> {
    U32 pairs;
    explicit Loaded(const BFloat16* p) { memcpy(&pairs, p, sizeof pairs); }
    ALWAYS_INLINE F32 first(int) const { return (F32)(pairs << 16); }
    ALWAYS_INLINE F32 second(int) const { return (F32)(pairs & 0xffff0000u); }
};

// In fours, of two rows: to widen bytes one by one would take longer. What comes out is 2^24 times too large.
template <>
struct Loaded<int8_t> {
    U32 fours;
    explicit Loaded(const int8_t* p) { memcpy(&fours, p, sizeof fours); }
    static ALWAYS_INLINE F32 floats(U32 upper) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
        return (F32)_mm512_maskz_cvtepi32_ps((__mmask16)-1, (__m512i)upper);
#else
        return __builtin_convertvector((I32)upper, F32);
#endif
    }
    ALWAYS_INLINE F32 first(int row) const { return floats(row ? (fours << 8) & 0xff000000u : fours << 24); }
    ALWAYS_INLINE F32 second(int row) const { return floats((row ? fours : fours << 16) & 0xff000000u); }
};

// Rows of a panel that are loaded together.
template <class W>
constexpr int ROWS_LOADED = sizeof(W) == 1 ? 2 : 1;

// The first n lanes (0 < n < LANES); the others are zero, and nothing behind them is touched.
ALWAYS_INLINE F32 load_part(const float* p, int n) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F32)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
    const I32 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return (F32)_mm256_maskload_ps(p, (__m256i)(lane < n));
#else
    F32 v = {};
    memcpy(&v, p, size_t(n) * sizeof(float));
    return v;
#endif
}

ALWAYS_INLINE F64 load_part(const double* p, int n) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F64)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif defined(__AVX2__)
    const I64 lane = {0, 1, 2, 3};
    return (F64)_mm256_maskload_pd(p, (__m256i)(lane < n));
#else
    F64 v = {};
    memcpy(&v, p, size_t(n) * sizeof(double));
    return v;
#endif
}

ALWAYS_INLINE void store_part(float* p, F32 v, int n) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__)
    const I32 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    _mm256_maskstore_ps(p, (__m256i)(lane < n), (__m256)v);
#else
    memcpy(p, &v, size_t(n) * sizeof(float));
#endif
}

ALWAYS_INLINE void store_part(double* p, F64 v, int n) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif defined(__AVX2__)
    const I64 lane = {0, 1, 2, 3};
    _mm256_maskstore_pd(p, (__m256i)(lane < n), (__m256d)v);
#else
    memcpy(p, &v, size_t(n) * sizeof(double));
#endif
}

// a * b + c with one rounding where the target can, with two where it cannot (x86-64-v2).
ALWAYS_INLINE F32 fma(F32 a, F32 b, F32 c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (F32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

ALWAYS_INLINE F64 fma(F64 a, F64 b, F64 c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
    return (F64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
    return (F64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

ALWAYS_INLINE F32 sqrt(F32 a) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F32)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX2__)
    return (F32)_mm256_sqrt_ps((__m256)a);
#elif defined(__aarch64__)
    return (F32)vsqrtq_f32((float32x4_t)a);
#else
    return (F32)_mm_sqrt_ps((__m128)a);
#endif
}

ALWAYS_INLINE F64 sqrt(F64 a) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F64)_mm512_sqrt_pd((__m512d)a);
#elif defined(__AVX2__)
    return (F64)_mm256_sqrt_pd((__m256d)a);
#elif defined(__aarch64__)
    return (F64)vsqrtq_f64((float64x2_t)a);
#else
    return (F64)_mm_sqrt_pd((__m128d)a);
#endif
}

// Lane by lane: where the mask (all ones or all zeros) is set, a; elsewhere b.
template <class V, class M>
ALWAYS_INLINE V select(M mask, V a, V b) {
    return mask ? a : b;
}

}  // namespace recurra::RECURRA_TARGET
