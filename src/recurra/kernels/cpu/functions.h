// The transcendental functions of the pointwise machine, for vectors of float and double.
//
// NaN stays NaN, infinities and signed zeros are those of libm; results below the smallest normal number may be zero.
// Largest errors in units of the last place, by tests/kernels/test_functions.py:
//
//            float  double                 float  double
//   exp      1.0    1.0         sigmoid    2.1    2.1
//   expm1    1.6    1.7         tanh       2.0    2.1
//   log      1.0    1.0         erf        1.5    as libm
//   log1p    1.6    1.6
//
// The polynomials are fitted by tools/fit_functions.py, which prints the intervals and errors.
#pragma once

#include "vector.h"

namespace recurra::RECURRA_TARGET {

template <class T>
ALWAYS_INLINE T lane_erf(T x);  // libm's, a lane at a time
template <>
ALWAYS_INLINE double lane_erf(double x) {
    return __builtin_erf(x);
}

template <class T, int N>
ALWAYS_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {  // lowest power first
    Vec<T> y = splat<T>(c[N - 1]);
#pragma GCC unroll 16
    for (int k = N - 2; k >= 0; k--) y = fma(y, x, splat<T>(c[k]));
    return y;
}

template <class T>
struct Constants;
template <>
struct Constants<float> {
    static constexpr float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    static constexpr float ROUND = 12582912.0f;                 // 1.5 * 2^23: adding it rounds to a whole number
    static constexpr float EXP_MOST = 89.0f, EXP_LEAST = -104.0f;  // beyond them it is infinite, or zero
    static constexpr float EXPM1_LEAST = -18.0f;                // below it is -1
    static constexpr float LEAST_NORMAL = 1.17549435e-38f, SUBNORMAL_SCALE = 8388608.0f;
    static constexpr int BIAS = 127, MANTISSA = 23, SUBNORMAL_SHIFT = 23;
    static constexpr int32_t ONE_BITS = 0x3f800000, ROOT_HALF_BITS = 0x3f3504f3, FRACTION = 0x007fffff;
    // (e^r - 1 - r) / r^2 on ±ln(2)/2: 6.5e-8
    static constexpr float EXP[] = {0.5f, 0.166665763f, 0.0416665561f, 0.00836317893f, 0.0013926184f};
    // (2 atanh(s) - 2 s) / s^3, in s^2, to s = (√2 - 1) / (√2 + 1): 1.2e-9
    static constexpr float LOG[] = {0.666666687f, 0.400001228f, 0.285508156f, 0.233305827f};
};
template <>
struct Constants<double> {
    static constexpr double LOG2E = 1.4426950408889634, LN2_HIGH = 0.693147180369123816490,
                            LN2_LOW = 1.90821492927058770002e-10;  // the high part has its last 21 bits clear
    static constexpr double ROUND = 6755399441055744.0;            // 1.5 * 2^52
    static constexpr double EXP_MOST = 710.0, EXP_LEAST = -746.0;
    static constexpr double EXPM1_LEAST = -38.0;
    static constexpr double LEAST_NORMAL = 2.2250738585072014e-308, SUBNORMAL_SCALE = 4503599627370496.0;
    static constexpr int BIAS = 1023, MANTISSA = 52, SUBNORMAL_SHIFT = 52;
    static constexpr int64_t ONE_BITS = 0x3ff0000000000000, ROOT_HALF_BITS = 0x3fe6a09e667f3bcd,
                             FRACTION = 0x000fffffffffffff;
    // (e^r - 1 - r) / r^2 on ±ln(2)/2: 1.4e-18
    static constexpr double EXP[] = {
        0.5, 0.16666666666666671, 0.041666666666666671, 0.0083333333333261358, 0.0013888888888883748,
        0.00019841269874820627, 2.4801587325547743e-05, 2.7557255400206422e-06, 2.7557273643110297e-07,
        2.5105217004720745e-08, 2.0914686968086876e-09};
    // (2 atanh(s) - 2 s) / s^3, in s^2, to s = (√2 - 1) / (√2 + 1): 1.4e-20
    static constexpr double LOG[] = {
        0.66666666666666663, 0.39999999999999991, 0.28571428571435364, 0.22222222219857288, 0.18181818593867599,
        0.15384575115766619, 0.13335639386359471, 0.11688107586595922, 0.11882142712627319};
};

template <class T>
ALWAYS_INLINE IVec<T> bits(Vec<T> x) {
    return (IVec<T>)x;
}

template <class T>
constexpr IVec<T> SIGN_BIT = IVec<T>{} + typename Of<T>::Int(1) * (typename Of<T>::Int(1) << (sizeof(T) * 8 - 2)) * -2;

template <class T>
ALWAYS_INLINE Vec<T> magnitude(Vec<T> x) {
    return (Vec<T>)(bits<T>(x) & ~SIGN_BIT<T>);
}

template <class T>
ALWAYS_INLINE Vec<T> with_sign(Vec<T> x, Vec<T> sign) {
    return (Vec<T>)((bits<T>(x) & ~SIGN_BIT<T>) | (bits<T>(sign) & SIGN_BIT<T>));
}

// 2^n for whole n within the normal numbers; `n` plus ROUND, so that its low bits are n.
template <class T>
ALWAYS_INLINE Vec<T> power_of_two(IVec<T> n) {
    return (Vec<T>)((n + Constants<T>::BIAS) << Constants<T>::MANTISSA);
}

// x = n ln(2) + r, |r| <= ln(2) / 2; gives r, and n both ways.
template <class T>
ALWAYS_INLINE Vec<T> reduce(Vec<T> x, IVec<T>& n) {
    typedef Constants<T> C;
    const Vec<T> shifted = fma(x, splat<T>(C::LOG2E), splat<T>(C::ROUND));
    n = bits<T>(shifted) - bits<T>(splat<T>(C::ROUND));
    const Vec<T> whole = shifted - splat<T>(C::ROUND);
    return fma(whole, splat<T>(-C::LN2_LOW), fma(whole, splat<T>(-C::LN2_HIGH), x));
}

template <class T>
ALWAYS_INLINE Vec<T> exp_of(Vec<T> x) {
    typedef Constants<T> C;
    x = select(x > splat<T>(C::EXP_MOST), splat<T>(C::EXP_MOST), x);
    x = select(x < splat<T>(C::EXP_LEAST), splat<T>(C::EXP_LEAST), x);
    IVec<T> n;
    const Vec<T> r = reduce<T>(x, n);
    const Vec<T> p = fma(r * r, polynomial<T>(r, C::EXP), r) + splat<T>(1);
    const IVec<T> half = n >> 1;  // in two steps: 2^n alone may be out of range where the result is not
    return p * power_of_two<T>(half) * power_of_two<T>(n - half);
}

// e^x - 1 for x from EXPM1_LEAST to 0
template <class T>
ALWAYS_INLINE Vec<T> expm1_negative(Vec<T> x) {
    typedef Constants<T> C;
    IVec<T> n;
    const Vec<T> r = reduce<T>(x, n);
    const Vec<T> p = fma(r * r, polynomial<T>(r, C::EXP), r);
    const Vec<T> scale = power_of_two<T>(n);
    return fma(scale, p, scale - splat<T>(1));
}

template <class T>
ALWAYS_INLINE Vec<T> expm1_of(Vec<T> x) {
    typedef Constants<T> C;
    const Vec<T> given = x;
    x = select(x > splat<T>(C::EXP_MOST), splat<T>(C::EXP_MOST), x);
    x = select(x < splat<T>(C::EXPM1_LEAST), splat<T>(C::EXPM1_LEAST), x);
    IVec<T> n;
    const Vec<T> r = reduce<T>(x, n);
    const Vec<T> p = fma(r * r, polynomial<T>(r, C::EXP), r);
    const Vec<T> scale = power_of_two<T>(n - 1);  // of half the result: 2^n may be out of range
    const Vec<T> y = fma(scale, p, scale - splat<T>(T(0.5)));
    const Vec<T> result = select(given < splat<T>(C::EXPM1_LEAST), splat<T>(-1), y + y);
    return select(given == Vec<T>{}, given, result);  // the sign of zero
}

template <class T>
ALWAYS_INLINE Vec<T> sigmoid_of(Vec<T> x) {
    return splat<T>(1) / (splat<T>(1) + exp_of<T>(-x));
}

template <class T>
ALWAYS_INLINE Vec<T> tanh_of(Vec<T> x) {
    typedef Constants<T> C;
    Vec<T> y = magnitude<T>(x) * splat<T>(-2);
    y = select(y < splat<T>(C::EXPM1_LEAST), splat<T>(C::EXPM1_LEAST), y);
    const Vec<T> e = expm1_negative<T>(y);
    return with_sign<T>(-e / (e + splat<T>(2)), x);
}

// log(m 2^k + c), for c far below it: c is 0, or what was lost in a sum
template <class T>
ALWAYS_INLINE Vec<T> log_of(Vec<T> x, Vec<T> lost) {
    typedef Constants<T> C;
    const Vec<T> given = x;
    const IVec<T> small = x < splat<T>(C::LEAST_NORMAL);
    x = select(small, x * splat<T>(C::SUBNORMAL_SCALE), x);
    // The exponent so that the rest lies between √½ and √2.
    const IVec<T> offset = bits<T>(x) - C::ROOT_HALF_BITS;
    const IVec<T> k = offset >> C::MANTISSA;
    const Vec<T> m = (Vec<T>)((offset & C::FRACTION) + C::ROOT_HALF_BITS);
    const Vec<T> f = m - splat<T>(1);
    const Vec<T> s = f / (f + splat<T>(2));
    const Vec<T> z = s * s;
    const Vec<T> rest = z * polynomial<T>(z, C::LOG);
    const Vec<T> half = splat<T>(T(0.5)) * f * f;
    const IVec<T> exponent = k - (small & C::SUBNORMAL_SHIFT);
    const Vec<T> kv = __builtin_convertvector(exponent, Vec<T>);
    // log(1 + f) = f - (f²/2 - s (f²/2 + rest))
    const Vec<T> low = fma(s, half + rest, fma(kv, splat<T>(C::LN2_LOW), lost));
    Vec<T> y = fma(kv, splat<T>(C::LN2_HIGH), f - (half - low));
    const Vec<T> infinity = splat<T>(T(__builtin_inf()));
    y = select(given == infinity, infinity, y);
    y = select(given == Vec<T>{}, -infinity, y);
    return select(given >= Vec<T>{}, y, splat<T>(T(__builtin_nan(""))));
}

template <class T>
ALWAYS_INLINE Vec<T> log1p_of(Vec<T> x) {
    const Vec<T> one = splat<T>(1), u = x + one;
    // What the sum lost, by Knuth's exact two-sum.
    const Vec<T> back = u - x;
    const Vec<T> lost = (x - (u - back)) + (one - back);
    const Vec<T> y = log_of<T>(u, lost / u);
    const Vec<T> infinity = splat<T>(T(__builtin_inf()));
    return select(u == one, x, select(x == infinity, x, select(u == Vec<T>{}, -infinity, y)));
}

template <class T>
ALWAYS_INLINE Vec<T> by_lanes_erf(Vec<T> x) {
    for (int i = 0; i < LANES<T>; i++) x[i] = lane_erf<T>(x[i]);
    return x;
}

ALWAYS_INLINE F32 erf_of(F32 x) {
    // erf(x) / x in x^2 to 1: 1.2e-9; -log(erfc(x)) in x - 2 from 1 to 4: 8.0e-9
    constexpr float SMALL[] = {1.12837911f,    -0.37612626f,  0.112835944f,  -0.0268542115f,
                               0.00518908724f, -0.00080168643f, 7.87587487e-05f};
    constexpr float LARGE[] = {5.36494112f,     4.41816092f,      0.923750997f,   0.0164651033f,    -0.0035712691f,
                               0.000732720597f, -0.000134732793f, 2.00704617e-05f, -1.95680173e-06f, 7.58268186e-08f};
    F32 a = magnitude<float>(x);
    const F32 near = x * polynomial<float>(x * x, SMALL);
    a = select(a > splat<float>(4.0f), splat<float>(4.0f), a);
    const F32 far = splat<float>(1.0f) - exp_of<float>(-polynomial<float>(a - splat<float>(2.0f), LARGE));
    return select(magnitude<float>(x) < splat<float>(1.0f), near, with_sign<float>(far, x));
}

ALWAYS_INLINE F64 erf_of(F64 x) { return by_lanes_erf<double>(x); }

#define RECURRA_BOTH(name, result_of)                                      \
    ALWAYS_INLINE F32 name(F32 x) { return result_of(float, F32, x); }     \
    ALWAYS_INLINE F64 name(F64 x) { return result_of(double, F64, x); }
#define RECURRA_EXP(T, V, x) exp_of<T>(x)
#define RECURRA_EXPM1(T, V, x) expm1_of<T>(x)
#define RECURRA_LOG(T, V, x) log_of<T>(x, V{})
#define RECURRA_LOG1P(T, V, x) log1p_of<T>(x)
#define RECURRA_SIGMOID(T, V, x) sigmoid_of<T>(x)
#define RECURRA_TANH(T, V, x) tanh_of<T>(x)
#define RECURRA_ERF(T, V, x) erf_of(x)
#define RECURRA_ABS(T, V, x) magnitude<T>(x)
#define RECURRA_RELU(T, V, x) select(x <= V{}, V{}, x)
#define RECURRA_SIGN(T, V, x) select(x > V{}, splat<T>(1), select(x < V{}, splat<T>(-1), V{}))
RECURRA_BOTH(exp, RECURRA_EXP)
RECURRA_BOTH(expm1, RECURRA_EXPM1)
RECURRA_BOTH(log, RECURRA_LOG)
RECURRA_BOTH(log1p, RECURRA_LOG1P)
RECURRA_BOTH(sigmoid, RECURRA_SIGMOID)
RECURRA_BOTH(tanh, RECURRA_TANH)
RECURRA_BOTH(erf, RECURRA_ERF)
RECURRA_BOTH(abs, RECURRA_ABS)
RECURRA_BOTH(relu, RECURRA_RELU)
RECURRA_BOTH(sign, RECURRA_SIGN)
#undef RECURRA_BOTH

// NaN wins, as in torch.
template <class V>
ALWAYS_INLINE V maximum(V x, V y) {
    return select(x != x, x, select(x > y, x, y));
}
template <class V>
ALWAYS_INLINE V minimum(V x, V y) {
    return select(x != x, x, select(x < y, x, y));
}

// The lanes of a vector, summed in one order: halves first.
template <class T>
ALWAYS_INLINE T hsum(Vec<T> v) {
    T lane[LANES<T>];
    memcpy(lane, &v, sizeof v);
#pragma GCC unroll 8
    for (int n = LANES<T> / 2; n; n /= 2)
        for (int i = 0; i < n; i++) lane[i] += lane[i + n];
    return lane[0];
}

}  // namespace recurra::RECURRA_TARGET
