// math.h behind one C function, for tests: built once per CPU target, loaded by ctypes.
#include "../../src/recurra/kernels/cpu/math.h"

using namespace recurra::RECURRA_TARGET;

namespace {

template <class T, class Function>
void map(const void* in, void* out, int64_t n, Function function) {
    const T* x = static_cast<const T*>(in);
    T* y = static_cast<T*>(out);
    int64_t i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>) store(y + i, function(load(x + i)));
    if (i < n) store_part(y + i, function(load_part(x + i, int(n - i))), int(n - i));
}

// Two numbers in, one out: a pair is element i of the first and of the second half of `in`.
template <class T, class Function>
void map2(const void* in, void* out, int64_t n, Function function) {
    const T* x = static_cast<const T*>(in);
    T* y = static_cast<T*>(out);
    for (int64_t i = 0; i + LANES<T> <= n; i += LANES<T>) store(y + i, function(load(x + i), load(x + n + i)));
}

// One number out per vector in.
template <class T, class Function>
void reduce(const void* in, void* out, int64_t n, Function function) {
    const T* x = static_cast<const T*>(in);
    T* y = static_cast<T*>(out);
    for (int64_t i = 0; i + LANES<T> <= n; i += LANES<T>) y[i / LANES<T>] = function(load(x + i));
}

template <class T>
void call(const char* name, const void* in, void* out, int64_t n) {
    typedef Vec<T> V;
#define ROW(how, function, ...) \
    if (!__builtin_strcmp(name, #function)) return how<T>(in, out, n, [](__VA_ARGS__) __attribute__((always_inline))
    ROW(map, exp, V x) { return exp(x); });
    ROW(map, expm1, V x) { return expm1(x); });
    ROW(map, log, V x) { return log(x); });
    ROW(map, log1p, V x) { return log1p(x); });
    ROW(map, sigmoid, V x) { return sigmoid(x); });
    ROW(map, tanh, V x) { return tanh(x); });
    ROW(map, erf, V x) { return erf(x); });
    ROW(map, abs, V x) { return abs(x); });
    ROW(map, sign, V x) { return sign(x); });
    ROW(map, relu, V x) { return relu(x); });
    ROW(map2, maximum, V a, V b) { return maximum(a, b); });
    ROW(map2, minimum, V a, V b) { return minimum(a, b); });
    ROW(reduce, hsum, V x) { return hsum(x); });
#undef ROW
    __builtin_trap();  // no such function
}

}  // namespace

// How many numbers of the type a vector has.
extern "C" int recurra_math_lanes(int is_double) { return is_double ? LANES<double> : LANES<float>; }

extern "C" void recurra_math(const char* name, int is_double, const void* in, void* out, int64_t n) {
    is_double ? call<double>(name, in, out, n) : call<float>(name, in, out, n);
}
