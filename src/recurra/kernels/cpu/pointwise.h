// The pointwise machine: one function an operation, over rows of numbers.
//
// Contract of each: d[r, j] = op(a[r, j], b[r, j], c[r, j]) for r < rows, j < columns; rows lie `stride` numbers apart
// (0: one row for all); d may be an operand, element for element; nothing past a row's columns is read or written.
// Truth is 1, falsehood 0.
#pragma once

#include "math.h"

namespace recurra::RECURRA_TARGET {

template <class T>
struct Rows {
    T* data;
    int64_t stride;
};

template <class T>
using Pointwise = void (*)(Rows<T> d, Rows<const T> a, Rows<const T> b, Rows<const T> c, Rows<const T> ahead, int64_t rows,
                           int64_t columns);

// FETCH: as many numbers of `ahead` are fetched on the way, a line now and then, so that fetches do not wait for each other.
template <class T, int ARITY, bool FETCH, class F>
ALWAYS_INLINE void each(F f, Rows<T> d, Rows<const T> a, Rows<const T> b, Rows<const T> c, Rows<const T> ahead, int64_t rows,
                        int64_t columns) {
    constexpr int L = LANES<T>;
    const bool dense = !FETCH && d.stride == columns && a.stride == columns && (ARITY < 2 || b.stride == columns) &&
                       (ARITY < 3 || c.stride == columns);
    if (dense) columns *= rows, rows = 1;  // one long row
    for (int64_t r = 0; r < rows; r++) {
        T* to = d.data + r * d.stride;
        const T *x = a.data + r * a.stride, *y = b.data + r * b.stride, *z = c.data + r * c.stride;
        const T* next = ahead.data + r * ahead.stride;
        const auto at = [&](int64_t j) ALWAYS_INLINE_LAMBDA {
            return f(load(x + j), ARITY > 1 ? load(y + j) : Vec<T>{}, ARITY > 2 ? load(z + j) : Vec<T>{});
        };
        if (columns < L) {
            const int n = int(columns);
            store_part(to, f(load_part(x, n), ARITY > 1 ? load_part(y, n) : Vec<T>{}, ARITY > 2 ? load_part(z, n) : Vec<T>{}), n);
            if constexpr (FETCH) __builtin_prefetch(next, 0, 3);
            continue;
        }
        // The last vector overlaps the one before it: stores of a part are slow. It is read before anything is written.
        const Vec<T> last = at(columns - L);
        for (int64_t j = 0; j + L < columns; j += L) {
            if constexpr (FETCH) __builtin_prefetch(next + j, 0, 3);
            store(to + j, at(j));
        }
        if constexpr (FETCH) __builtin_prefetch(next + columns - L, 0, 3);
        store(to + columns - L, last);
    }
}

// name, operands, the result in x, y, z. The order is that of OPERATIONS in kernels/lower.py, which tests hold equal.
#define RECURRA_POINTWISE(ROW)                              \
    ROW(copy, 1, x)                                         \
    ROW(add, 2, x + y)                                      \
    ROW(sub, 2, x - y)                                      \
    ROW(mul, 2, x* y)                                       \
    ROW(div, 2, x / y)                                      \
    ROW(neg, 1, -x)                                         \
    ROW(fma, 3, fma(x, y, z))                               \
    ROW(fms, 3, fma(x, y, -z))                              \
    ROW(fnma, 3, fma(-x, y, z))                             \
    ROW(sigmoid, 1, sigmoid(x))                             \
    ROW(tanh, 1, tanh(x))                                   \
    ROW(relu, 1, relu(x))                                   \
    ROW(exp, 1, exp(x))                                     \
    ROW(expm1, 1, expm1(x))                                 \
    ROW(log, 1, log(x))                                     \
    ROW(log1p, 1, log1p(x))                                 \
    ROW(sqrt, 1, sqrt(x))                                   \
    ROW(erf, 1, erf(x))                                     \
    ROW(abs, 1, abs(x))                                     \
    ROW(sign, 1, sign(x))                                   \
    ROW(maximum, 2, maximum(x, y))                          \
    ROW(minimum, 2, minimum(x, y))                          \
    ROW(gt, 2, truth<T>(x > y))                             \
    ROW(ge, 2, truth<T>(x >= y))                            \
    ROW(lt, 2, truth<T>(x < y))                             \
    ROW(le, 2, truth<T>(x <= y))                            \
    ROW(eq, 2, truth<T>(x == y))                            \
    ROW(ne, 2, truth<T>(x != y))                            \
    ROW(where, 3, select(x != splat<T>(T(0)), y, z))

template <class T>
ALWAYS_INLINE Vec<T> truth(IVec<T> mask) {
    return select(mask, splat<T>(T(1)), Vec<T>{});
}

#define RECURRA_FUNCTION(name, arity, result)                                                                         \
    template <class T, bool FETCH>                                                                                    \
    void pointwise_##name(Rows<T> d, Rows<const T> a, Rows<const T> b, Rows<const T> c, Rows<const T> ahead,          \
                          int64_t rows, int64_t columns) {                                                            \
        each<T, arity, FETCH>([](Vec<T> x, [[maybe_unused]] Vec<T> y, [[maybe_unused]] Vec<T> z)                      \
                                  ALWAYS_INLINE_LAMBDA -> Vec<T> { return result; },                                  \
                              d, a, b, c, ahead, rows, columns);                                                      \
    }
RECURRA_POINTWISE(RECURRA_FUNCTION)
#undef RECURRA_FUNCTION

#define RECURRA_ENTRY(name, arity, result) {pointwise_##name<T, false>, pointwise_##name<T, true>},
template <class T>
constexpr Pointwise<T> POINTWISE[][2] = {RECURRA_POINTWISE(RECURRA_ENTRY)};
#undef RECURRA_ENTRY

// --- reductions: all units of a row ----------------------------------------------------------------------------------
// Lanes are summed side by side and met in one order, so a row has the same bits whatever rows stand beside it.

template <class T>
ALWAYS_INLINE T row_sum(const T* x, int n) {
    constexpr int L = LANES<T>;
    Vec<T> s0{}, s1{};
    int j = 0;
    for (; j + 2 * L <= n; j += 2 * L) s0 += load(x + j), s1 += load(x + j + L);
    if (j + L <= n) s0 += load(x + j), j += L;
    if (j < n) s1 += load_part(x + j, n - j);
    return hsum(s0 + s1);
}

// Σ (x - shift)(y - shift_y)
template <class T>
ALWAYS_INLINE T row_dot(const T* x, T shift, const T* y, T shift_y, int n) {
    constexpr int L = LANES<T>;
    const Vec<T> m = splat<T>(shift), my = splat<T>(shift_y);
    Vec<T> s0{}, s1{};
    int j = 0;
    for (; j + 2 * L <= n; j += 2 * L) {
        s0 = fma(load(x + j) - m, load(y + j) - my, s0);
        s1 = fma(load(x + j + L) - m, load(y + j + L) - my, s1);
    }
    if (j + L <= n) s0 = fma(load(x + j) - m, load(y + j) - my, s0), j += L;
    T rest = 0;  // lanes behind the end are not zero once the shift is taken off
    for (; j < n; j++) rest += (x[j] - shift) * (y[j] - shift_y);
    return hsum(s0 + s1) + rest;
}

// d = (a - mean) s; gives s = 1 / √(var + eps)
template <class T>
T standardize(T* d, const T* a, int n, T eps) {
    constexpr int L = LANES<T>;
    const T mean = row_sum(a, n) / T(n);
    const T variance = row_dot(a, mean, a, mean, n) / T(n);
    const T scale = T(1) / __builtin_sqrt(variance + eps);
    const Vec<T> m = splat<T>(mean), s = splat<T>(scale);
    int j = 0;
    for (; j + L <= n; j += L) store(d + j, (load(a + j) - m) * s);
    if (j < n) store_part(d + j, (load_part(a + j, n - j) - m) * s, n - j);
    return scale;
}

// s (g - mean(g) - y mean(g y))
template <class T>
void standardize_grad(T* d, const T* g, const T* y, T scale, int n) {
    constexpr int L = LANES<T>;
    const Vec<T> mean = splat<T>(row_sum(g, n) / T(n)), dot = splat<T>(row_dot(g, T(0), y, T(0), n) / T(n));
    const Vec<T> s = splat<T>(scale);
    int j = 0;
    for (; j + L <= n; j += L) store(d + j, s * fma(-load(y + j), dot, load(g + j) - mean));
    if (j < n) store_part(d + j, s * fma(-load_part(y + j, n - j), dot, load_part(g + j, n - j) - mean), n - j);
}

template <class T>
T row_max(const T* x, int n) {
    T best = x[0];
    for (int j = 1; j < n; j++) best = x[j] > best || x[j] != x[j] ? x[j] : best;  // NaN wins, as in torch
    return best;
}

}  // namespace recurra::RECURRA_TARGET
