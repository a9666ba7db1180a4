// Functions of vectors: the transcendental ones of the pointwise machine, and those few that need care with NaN.
//
// One template for float and double: the types differ in constants alone. No branches, no tables, no gathers; one
// division each in sigmoid, tanh, log and log1p. NaN in gives NaN out; infinities, signed zeros and subnormal numbers,
// as arguments and as results, are those of the C library. Rounding is to nearest, and subnormals are not flushed.
//
// Polynomials are our own minimax fits, as printed by tools/fit_math.py: half an ulp is 2^-24 for float, 2^-53 for
// double, relative to the function that is named.
//
// Largest errors in ulp over arguments of every size (`python tests/kernels/test_math.py 509`), on x86-64-v2 | -v3:
//
//             exp        expm1        log         log1p       sigmoid      tanh        erf
//   float   .96 | 1.02  1.39 | 1.38  .94 | .93  1.47 | 1.47  1.60 | 1.50  1.36 | 1.29  1.40 | 1.21
//   double  .92 |  .94  1.84 | 1.75  .95 | .95  1.33 | 1.33  1.64 | 1.51  1.46 | 1.45  1.55 | 1.28
#pragma once

#include "vector.h"

namespace recurra::RECURRA_TARGET {

namespace detail {

template <class V>
struct Number;  // the number of a vector, and constants of its type

template <>
struct Number<F32> {
    typedef float T;
    typedef uint32_t Bits;
    typedef I32 Signed;
    typedef uint32_t Unsigned __attribute__((vector_size(BYTES)));
    static constexpr int MANTISSA = 23, BIAS = 127, HALFWAY = 64;  // HALFWAY: about half of BIAS
    static constexpr Bits HALF_SQRT2 = 0x3f3504f3;                 // sqrt(2) / 2
    static constexpr float MAGIC = 0x1.8p23f;              // x + MAGIC is rounded to an integer: its low bits hold it
    static constexpr float EXP_LOW = -105, EXP_HIGH = 89;  // exp is 0 below, inf above
    static constexpr float ONE_LOW = -30;                  // 1 + exp is 1 below, and exp - 1 is -1
    static constexpr float TANH_HIGH = 9.1f, ERF_HIGH = 4;  // 1 above
    static constexpr float LOG2E = 0x1.715476p0f, LN2 = 0x1.62e43p-1f;
    // ln 2 in two parts: the product of the first with any exponent is exact, with fma() or without.
    static constexpr float LN2_HIGH = 0x1.62e4p-1f, LN2_LOW = 0x1.7f7d1cp-20f;
    // exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2; error 0.064 half ulp
    static constexpr float EXP[] = {0.5, 0x1.5554a4p-3f, 0x1.555688p-5f, 0x1.122f82p-7f, 0x1.6b6ed6p-10f};
    // expm1(r) = r + r^2 p(r), |r| <= ln(2) / 2; error 0.018 half ulp
    static constexpr float EXPM1[] = {0.5, 0x1.555554p-3f, 0x1.5554f2p-5f, 0x1.1111cap-7f, 0x1.6d407ep-10f,
                                      0x1.9fbe78p-13f};
    // tanh(x) = x + x^3 p(x^2), |x| <= 0.55; error 0.68 half ulp
    static constexpr float TANH[] = {-0x1.555452p-2f, 0x1.10ceep-3f, -0x1.af7aaap-5f, 0x1.0d4816p-6f};
    // 2 atanh(s) = 2 s + s^3 p(s^2), |s| <= (sqrt(2) - 1) / (sqrt(2) + 1); error 0.015 half ulp
    static constexpr float LOG[] = {0x1.55557ap-1f, 0x1.995eb6p-2f, 0x1.31e39cp-2f};
    // erf(x) = x + x p(x^2), |x| <= 1; error 0.048 half ulp
    static constexpr float ERF[] = {0x1.06eba8p-3f, -0x1.81273ep-2f, 0x1.ce2cf8p-4f, -0x1.b7f912p-6f, 0x1.5405dcp-8f,
                                    -0x1.a3f822p-11f, 0x1.496d2ap-14f};
    // erf(x) = 1 - exp(p(x)), 1 <= x, up to where it is 1; error 0.096 half ulp
    static constexpr float ERFC[] = {-0x1.663a36p-12f, -0x1.2088e2p0f, -0x1.46bb08p-1f, -0x1.a65278p-4f, 0x1.65c9dap-6f,
                                     -0x1.825792p-9f, 0x1.86d7b2p-13f};
};

template <>
struct Number<F64> {
    typedef double T;
    typedef uint64_t Bits;
    typedef I64 Signed;
    typedef uint64_t Unsigned __attribute__((vector_size(BYTES)));
    static constexpr int MANTISSA = 52, BIAS = 1023, HALFWAY = 512;
    static constexpr Bits HALF_SQRT2 = 0x3fe6a09e667f3bcd;
    static constexpr double MAGIC = 0x1.8p52;
    static constexpr double EXP_LOW = -746, EXP_HIGH = 710;
    static constexpr double ONE_LOW = -60;
    static constexpr double TANH_HIGH = 20, ERF_HIGH = 6;
    static constexpr double LOG2E = 0x1.71547652b82fep0, LN2 = 0x1.62e42fefa39efp-1;
    static constexpr double LN2_HIGH = 0x1.62e42fefa2p-1, LN2_LOW = 0x1.9ef35793c7673p-41;
    // exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2; error 0.05 half ulp
    static constexpr double EXP[] = {0.5, 0x1.5555555555501p-3, 0x1.5555555553206p-5, 0x1.11111111288fdp-7,
                                     0x1.6c16c17cc360bp-10, 0x1.a01a011bfc9a2p-13, 0x1.a019ab2cbb518p-16,
                                     0x1.71df558c2b8acp-19, 0x1.289f8b430165bp-22, 0x1.ad1faf75bba88p-26};
    // expm1(r) = r + r^2 p(r), |r| <= ln(2) / 2; error 0.016 half ulp
    static constexpr double EXPM1[] = {0.5, 0x1.5555555555559p-3, 0x1.5555555555548p-5, 0x1.111111110f7e9p-7,
                                       0x1.6c16c16c1cdb3p-10, 0x1.a01a01af7751p-13, 0x1.a01a0182c4bf2p-16,
                                       0x1.71ddf94e70d43p-19, 0x1.27e52bb2cac29p-22, 0x1.af5d2b59eace5p-26,
                                       0x1.1ef45fcdc82dep-29};
    // tanh(x) = x + x^3 p(x^2), |x| <= 0.55; error 0.24 half ulp
    static constexpr double TANH[] = {-0x1.555555555549dp-2, 0x1.1111111102917p-3, -0x1.ba1ba1ad6cbc4p-5,
                                      0x1.664f45c1edff3p-6, -0x1.226ddd2e00ee4p-7, 0x1.d6c61a409c2d3p-9,
                                      -0x1.7cf399baff9e8p-10, 0x1.2fa1a9a95186cp-11, -0x1.b903c28cfcdd2p-13,
                                      0x1.abefd2ca1278cp-15};
    // 2 atanh(s) = 2 s + s^3 p(s^2), |s| <= (sqrt(2) - 1) / (sqrt(2) + 1); error 0.017 half ulp
    static constexpr double LOG[] = {0x1.5555555555592p-1, 0x1.999999997fd61p-2, 0x1.24924941f85cbp-2,
                                     0x1.c71c5201d824dp-3, 0x1.746640c16c48ap-3, 0x1.39a183b842872p-3,
                                     0x1.2f07d37a089b6p-3};
    // erf(x) = x + x p(x^2), |x| <= 1; error 0.23 half ulp
    static constexpr double ERF[] = {0x1.06eba8214db68p-3, -0x1.812746b0379bdp-2, 0x1.ce2f21a040d18p-4,
                                     -0x1.b82ce311fa999p-6, 0x1.565bccf92baaap-8, -0x1.c02db03de2a4fp-11,
                                     0x1.f9a2baa99e1f7p-14, -0x1.f4ca4d73dcf79p-17, 0x1.b97fd3e4d67a3p-20,
                                     -0x1.5c0726a1dc996p-23, 0x1.d71b0a363fa17p-27, -0x1.abae34cbe8ee3p-31};
    // erf(x) = 1 - exp(p(x)), 1 <= x, up to where it is 1; error 0.22 half ulp
    static constexpr double ERFC[] = {-0x1.81cd77d12bb51p-23, -0x1.20dd562d4bcb9p0, -0x1.45f42b64d4dep-1,
                                      -0x1.a4da4c3a4c606p-4, 0x1.38938ab3ee307p-6, 0x1.262143392f72p-12,
                                      -0x1.cfbcd3688bceap-10, 0x1.502ae4ab7f577p-11, -0x1.7817d5d297c87p-15,
                                      -0x1.271cba73a3ep-14, 0x1.79c6d109a2102p-15, -0x1.150a5e4e9b5aap-16,
                                      0x1.225d010fc27efp-18, -0x1.c89d5af6893b4p-21, 0x1.0ded5bfb7b5efp-23,
                                      -0x1.d42aeaff4952ep-27, 0x1.19ea1d8d3ae58p-30, -0x1.a5d16c9e5f028p-35,
                                      0x1.276832e90fa94p-40};
};

template <class V>
using NumberOf = typename Number<V>::T;
template <class V>
using Bits = typename Number<V>::Unsigned;

template <class V>
constexpr NumberOf<V> INF = NumberOf<V>(__builtin_huge_val());
template <class V>
constexpr typename Number<V>::Bits SIGN = typename Number<V>::Bits(1) << (8 * sizeof(NumberOf<V>) - 1);

// The vector whose lanes are all x.
template <class V>
ALWAYS_INLINE V all(NumberOf<V> x) {
    return splat<NumberOf<V>>(x);
}

// a > b ? a : b and a < b ? a : b, in one instruction where the target has it: b where either is NaN, or both are zero.
// (AVX-512 by the masked forms: GCC 12 warns of something uninitialised inside of the others.)
ALWAYS_INLINE F32 larger(F32 a, F32 b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F32)_mm512_maskz_max_ps((__mmask16)-1, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (F32)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (F32)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}

ALWAYS_INLINE F64 larger(F64 a, F64 b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F64)_mm512_maskz_max_pd((__mmask8)-1, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (F64)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__x86_64__)
    return (F64)_mm_max_pd((__m128d)a, (__m128d)b);
#else
    return a > b ? a : b;
#endif
}

ALWAYS_INLINE F32 smaller(F32 a, F32 b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F32)_mm512_maskz_min_ps((__mmask16)-1, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (F32)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (F32)_mm_min_ps((__m128)a, (__m128)b);
#else
    return a < b ? a : b;
#endif
}

ALWAYS_INLINE F64 smaller(F64 a, F64 b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return (F64)_mm512_maskz_min_pd((__mmask8)-1, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    return (F64)_mm256_min_pd((__m256d)a, (__m256d)b);
#elif defined(__x86_64__)
    return (F64)_mm_min_pd((__m128d)a, (__m128d)b);
#else
    return a < b ? a : b;
#endif
}

// x within bounds; NaN stays.
template <class V>
ALWAYS_INLINE V at_least(V x, NumberOf<V> low) {
    return larger(all<V>(low), x);
}

template <class V>
ALWAYS_INLINE V at_most(V x, NumberOf<V> high) {
    return smaller(all<V>(high), x);
}

template <class V>
ALWAYS_INLINE V abs(V x) {
    return (V)((Bits<V>)x & ~SIGN<V>);
}

// For odd functions: magnitude, which has no sign yet or the right one, with the sign of x.
template <class V>
ALWAYS_INLINE V with_sign(V magnitude, V x) {
    return (V)((Bits<V>)magnitude | ((Bits<V>)x & SIGN<V>));
}

// |K| times the sum of c[i] (K x)^i; square is x^2. Long sums are two shorter chains, of the even and of the odd
// powers, but for c[0], which comes last so that the roundings before it weigh little.
template <int K = 1, class V, int N>
ALWAYS_INLINE V polynomial(V x, V square, const NumberOf<V> (&c)[N]) {
    const auto term = [&c](int i) __attribute__((always_inline)) {
        NumberOf<V> t = K < 0 ? -K : K;
#pragma GCC unroll 32
        for (int k = 0; k < i; ++k) t *= K;
        return all<V>(t * c[i]);
    };
    V y = term(N - 1);
    if constexpr (N <= 6) {
#pragma GCC unroll 32
        for (int i = N - 2; i >= 0; --i) y = fma(y, x, term(i));
        return y;
    } else {
        V other = term(N - 2);
#pragma GCC unroll 32
        for (int i = N - 3; i > 0; i -= 2) y = fma(y, square, term(i));
#pragma GCC unroll 32
        for (int i = N - 4; i > 0; i -= 2) other = fma(other, square, term(i));
        return fma(N % 2 ? fma(y, x, other) : fma(other, x, y), x, term(0));
    }
}

// exp(K x) = 2^n (1 + |K| u); scale is 2^(n + shift). x is within bounds that keep n + shift a normal exponent.
template <class V>
struct Exponential {
    V scale, n, u;
};

template <int K, class V, int N>
ALWAYS_INLINE Exponential<V> exponential(V x, V shift, const NumberOf<V> (&coefficients)[N]) {
    typedef Number<V> C;
    const V magic = shift + (C::MAGIC + C::BIAS);
    const V rounded = fma(x, all<V>(K * C::LOG2E), magic);
    const V n = rounded - magic;
    V r;  // x - n ln(2) / K
    if constexpr (K == 2)
        r = fma(n, all<V>(-C::LN2 / K), x);  // of tanh: where n is large, the error of exp is small in it
    else
        r = fma(n, all<V>(-C::LN2_LOW / K), fma(n, all<V>(-C::LN2_HIGH / K), x));
    const V square = r * r;
    const V u = fma(square, polynomial<K>(r, square, coefficients), K < 0 ? -r : r);
    return {(V)((Bits<V>)rounded << C::MANTISSA), n, u};
}

template <class V>
ALWAYS_INLINE V exp(V x) {
    typedef Number<V> C;
    constexpr NumberOf<V> up = __builtin_ldexp(1, C::HALFWAY), down = 1 / up;
    // 2^n may be out of range where exp(x) is not: it is made in two factors.
    const auto negative = (typename C::Signed)x < 0;
    const V shift = negative ? all<V>(C::HALFWAY) : all<V>(-C::HALFWAY);
    const auto [scale, n, u] = exponential<1>(at_most(at_least(x, C::EXP_LOW), C::EXP_HIGH), shift, C::EXP);
    return fma(scale, u, scale) * (negative ? all<V>(down) : all<V>(up));
}

template <class V>
ALWAYS_INLINE V expm1(V x) {
    typedef Number<V> C;
    // Half of it first: exp(x) may be out of range where half of it is not.
    const auto [half, n, u] = exponential<1>(at_most(at_least(x, C::ONE_LOW), C::EXP_HIGH), all<V>(-1), C::EXPM1);
    return with_sign(n == 0 ? u : 2 * fma(half, u, half - NumberOf<V>(0.5)), x);
}

// 1 / (1 + exp(-x)), both sides of the fraction scaled so that it may be subnormal.
template <class V>
ALWAYS_INLINE V sigmoid(V x) {
    typedef Number<V> C;
    constexpr NumberOf<V> one = 1 / NumberOf<V>(__builtin_ldexp(1, C::HALFWAY));
    const V bounded = at_most(at_least(x, C::EXP_LOW), -C::ONE_LOW);
    const auto [scale, n, u] = exponential<-1>(bounded, all<V>(-C::HALFWAY), C::EXP);
    // What scale + one loses where they are far apart comes back with u.
    const V sum = scale + one, lost = one - (sum - scale);
    return one / (sum + fma(scale, u, lost));
}

// 1 - 2 / (exp(2 |x|) + 1) where that is over a half, below it an odd polynomial.
template <class V>
ALWAYS_INLINE V tanh(V x) {
    typedef Number<V> C;
    const V y = at_most(abs(x), C::TANH_HIGH);
    const auto [scale, n, u] = exponential<2>(y, V{}, C::EXP);
    const V large = 1 - 1 / fma(scale, u, fma(scale, all<V>(0.5), all<V>(0.5)));
    const V square = x * x;
    const V small = fma(x * square, polynomial(square, square * square, C::TANH), x);
    return with_sign(y > NumberOf<V>(0.55) ? large : small, x);
}

// 1 - erfc(|x|) above 1, below it an odd polynomial.
template <class V>
ALWAYS_INLINE V erf(V x) {
    typedef Number<V> C;
    const V y = at_most(abs(x), C::ERF_HIGH), square = y * y;
    const auto [scale, n, u] = exponential<1>(polynomial(y, square, C::ERFC), V{}, C::EXP);
    const V large = fma(-scale, u, 1 - scale);
    const V small = fma(x, polynomial(square, square * square, C::ERF), x);
    return with_sign(y > 1 ? large : small, x);
}

// x = 2^e m with sqrt(2) / 2 <= m < sqrt(2), for x normal and positive.
template <class V>
struct Split {
    V m, e;
    Bits<V> exponent;  // of the number 2^e, in place
};

template <class V>
ALWAYS_INLINE Split<V> split(V x) {
    typedef Number<V> C;
    typedef typename C::Bits B;
    constexpr B one = B(C::BIAS) << C::MANTISSA, mantissa = (B(1) << C::MANTISSA) - 1;
    constexpr NumberOf<V> integer = B(1) << C::MANTISSA;  // its low bits count units
    const Bits<V> moved = (Bits<V>)x + (one - C::HALF_SQRT2);
    const V e = (V)((moved >> C::MANTISSA) | (Bits<V>)all<V>(integer)) - (integer + C::BIAS);
    return {(V)((moved & mantissa) + C::HALF_SQRT2), e, moved & ~mantissa};
}

// e ln(2) + log(1 + f), the latter as f - s (f - s^2 p(s^2)) = 2 atanh(s) with s = f / (2 + f)
template <class V>
ALWAYS_INLINE V log_of_split(V e, V f) {
    typedef Number<V> C;
    const V s = f / (f + 2), square = s * s;
    const V rest = s * fma(square, polynomial(square, square * square, C::LOG), -f);
    return fma(e, all<V>(C::LN2_HIGH), f + fma(e, all<V>(C::LN2_LOW), rest));
}

// y = log(1 + x) for -1 < x < inf, and what it is elsewhere.
template <class V>
ALWAYS_INLINE V with_limits(V y, V x, NumberOf<V> pole) {
    const V finite = x < INF<V> ? y : x;
    return x > pole ? finite : (x == pole ? all<V>(-INF<V>) : all<V>(__builtin_nan("")));
}

template <class V>
ALWAYS_INLINE V log(V x) {
    typedef Number<V> C;
    constexpr NumberOf<V> smallest = __builtin_ldexp(1, 1 - C::BIAS), up = __builtin_ldexp(1, C::MANTISSA);
    const auto subnormal = x < smallest;
    const Split<V> p = split(subnormal ? x * up : x);
    return with_limits(log_of_split(p.e - (subnormal ? all<V>(C::MANTISSA) : V{}), p.m - 1), x, 0);
}

template <class V>
ALWAYS_INLINE V log1p(V x) {
    typedef Number<V> C;
    constexpr NumberOf<V> large = __builtin_ldexp(1, C::MANTISSA + 3);  // 1 + x is x above
    const V sum = x + 1, lost = x - (sum - 1);
    const Split<V> p = split(sum);
    const V inverse = (V)((typename C::Bits(2 * C::BIAS) << C::MANTISSA) - p.exponent);  // 2^-e
    const V y = log_of_split(p.e, (p.m - 1) + (x < large ? lost * inverse : V{}));
    return with_sign(with_limits(y, x, -1), x);
}

// As torch.sign: 0 for NaN and for both zeros.
template <class V>
ALWAYS_INLINE V sign(V x) {
    return (x > 0 ? all<V>(1) : V{}) - (x < 0 ? all<V>(1) : V{});
}

// As torch.relu: NaN and both zeros stay.
template <class V>
ALWAYS_INLINE V relu(V x) {
    return larger(V{}, x);
}

// As torch.maximum and torch.minimum: NaN where either is; of two zeros, the second operand.
template <class V>
ALWAYS_INLINE V maximum(V a, V b) {
    return a == a ? larger(a, b) : a;
}

template <class V>
ALWAYS_INLINE V minimum(V a, V b) {
    return a == a ? smaller(a, b) : a;
}

// The sum of all lanes in one order: lane i with lane i + LANES / 2, then i with i + LANES / 4, and so on.
template <class V>
ALWAYS_INLINE NumberOf<V> hsum(V v) {
    constexpr int N = LANES<NumberOf<V>>;
    NumberOf<V> lane[N];
    memcpy(lane, &v, sizeof v);
#pragma GCC unroll 8
    for (int n = N / 2; n; n /= 2)
        for (int i = 0; i < n; i++) lane[i] += lane[i + n];
    return lane[0];
}

}  // namespace detail

#define RECURRA_UNARY(name)                                   \
    ALWAYS_INLINE F32 name(F32 x) { return detail::name(x); } \
    ALWAYS_INLINE F64 name(F64 x) { return detail::name(x); }
#define RECURRA_BINARY(name)                                            \
    ALWAYS_INLINE F32 name(F32 a, F32 b) { return detail::name(a, b); } \
    ALWAYS_INLINE F64 name(F64 a, F64 b) { return detail::name(a, b); }
RECURRA_UNARY(exp)
RECURRA_UNARY(expm1)
RECURRA_UNARY(log)
RECURRA_UNARY(log1p)
RECURRA_UNARY(sigmoid)
RECURRA_UNARY(tanh)
RECURRA_UNARY(erf)
RECURRA_UNARY(abs)
RECURRA_UNARY(sign)
RECURRA_UNARY(relu)
RECURRA_BINARY(maximum)
RECURRA_BINARY(minimum)
#undef RECURRA_UNARY
#undef RECURRA_BINARY

ALWAYS_INLINE float hsum(F32 x) { return detail::hsum(x); }
ALWAYS_INLINE double hsum(F64 x) { return detail::hsum(x); }

}  // namespace recurra::RECURRA_TARGET
