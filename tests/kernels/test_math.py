"""math.h on each CPU target that this machine runs: errors in ulp against a table, limits bit for bit.

python tests/kernels/test_math.py 61    # the largest errors, of each 61st float and 61 times the doubles of a test
"""

import ctypes
import functools
import math
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
# The options of the extension; "-Werror": what warns here warns in each kernel.
OPTIONS = "-std=c++20 -O3 -ffp-contract=off -fPIC -shared -Wall -Wextra -Werror".split()
# What the machine must be able to do, in torch's words, for each target of its architecture.
ARCHITECTURES = {
    "x86_64": {
        "x86-64-v2": ("DEFAULT", "AVX2", "AVX512"),
        "x86-64-v3": ("AVX2", "AVX512"),
        "x86-64-v4": ("AVX512",),
    },
    "aarch64": {"armv8-a": ("DEFAULT", "SVE256")},
}
TARGETS = ARCHITECTURES.get(platform.machine(), {})

# The largest error of each function in ulp, float and double: those measured (the table in math.h), rounded up.
BOUNDS = {
    "exp": (1.1, 1.1),
    "expm1": (1.5, 2.0),
    "log": (1.0, 1.0),
    "log1p": (1.6, 1.5),
    "sigmoid": (1.7, 1.8),
    "tanh": (1.5, 1.6),
    "erf": (1.5, 1.6),
}
# Where a formula gives way to another, or the result to a limit.
EDGES = {
    "exp": (0.34657359, 1.0, 88.7228, -87.3365, -103.97, 709.7827, -708.396, -745.133),
    "expm1": (0.34657359, 0.5, 1.03972077, -0.34657359, -17.3, 88.7228, -37.4, 709.7827),
    "log": (1.0, 1.41421356, 0.70710678, 2.0),
    "log1p": (0.41421356, -0.29289322, -0.99999, 1.0, 8388608.0, 67108864.0, 4503599627370496.0),
    "sigmoid": (0.34657359, -16.635532, -36.736801, 16.635532, 36.736801, -88.0, -103.97, -709.0, -745.133),
    "tanh": (0.55, -0.55, 0.5493, 9.01, 19.06, 0.17328680),
    "erf": (1.0, -1.0, 0.999, 3.92, 5.92),
}
INF, NAN = math.inf, math.nan
LIMITS = {  # x, f(x): the signs of zeros too
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e5, INF), (-1e5, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (1e5, INF), (-1e5, -1.0)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-45, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, -INF), (-1.5, NAN), (-INF, NAN)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e5, 1.0), (-1e5, 0.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e5, 1.0), (-1e5, -1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e5, 1.0), (-1e5, -1.0)],
}
DTYPES = (np.float32, np.float64)


class Compiled:
    """The functions of one target, of numpy arrays."""

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        pointer = ctypes.c_void_p
        self.library.recurra_math.argtypes = [ctypes.c_char_p, ctypes.c_int, pointer, pointer, ctypes.c_int64]

    def lanes(self, dtype):
        return self.library.recurra_math_lanes(dtype == np.float64)

    def __call__(self, name, x, n=None):
        """n: of how many numbers x is, if an element of the result is made of several."""
        x = np.ascontiguousarray(x)
        y = np.full_like(x, np.nan)
        self.library.recurra_math(name.encode(), x.dtype == np.float64, x.ctypes.data, y.ctypes.data, n or len(x))
        return y


def compiled(target, folder):
    library = folder / f"math-{target}.so"
    source = [str(HERE / "math_harness.cpp"), "-o", str(library), f"-march={target}", "-DRECURRA_TARGET=under_test"]
    done = subprocess.run(["g++", *OPTIONS, *source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture(scope="module", params=TARGETS or ["none"])
def library(request, tmp_path_factory):
    if request.param not in TARGETS:
        pytest.skip(f"math.h has no target for {platform.machine()}")
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine to compile math.h with")
    return request.param, compiled(request.param, tmp_path_factory.mktemp("math"))


@pytest.fixture(scope="module")
def f(library):
    target, path = library
    if torch.backends.cpu.get_cpu_capability() not in TARGETS[target]:
        pytest.skip(f"this machine compiles for {target}, but does not run it")
    return Compiled(path)


def bits_of(x):
    return x.view(np.uint32 if x.dtype == np.float32 else np.uint64)


def assert_same_bits(got, expected):
    """NaN is NaN, whatever its bits."""
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), ~numbers)
    np.testing.assert_array_equal(bits_of(got)[numbers], bits_of(expected)[numbers])


def floats(name, stride, offset=0):
    """Each `stride`-th bit pattern, and all of 8,192 floats on each side of each edge."""
    patterns = np.arange(offset, 1 << 32, stride, dtype=np.uint64).astype(np.uint32)
    near = np.arange(-8192, 8192)
    edges = [bits_of(np.float32([x])).astype(np.int64) + near for x in EDGES[name]]
    return np.concatenate([patterns, *(e.astype(np.uint32) for e in edges)]).view(np.float32)


def doubles(name, count, seed=0):
    """Any bits, any exponent, the range in which the function lives, next to 0, next to 1 and next to edges."""
    rng = np.random.default_rng(seed)
    n = count // 6
    signs = rng.choice([-1.0, 1.0], (4, n))
    nearby = rng.choice(EDGES[name], n) * (1 + signs[3] * rng.uniform(0.5, 1, n) * 2.0 ** rng.integers(-52, -4, n))
    return np.concatenate(
        [
            rng.integers(0, 1 << 64, n, dtype=np.uint64).view(np.float64),
            signs[0] * rng.uniform(1, 2, n) * 2.0 ** rng.integers(-1022, 1023, n),
            signs[1] * rng.uniform(1, 2, n) * 2.0 ** rng.integers(-30, 7, n),
            rng.uniform(-1.5, 1.5, n),
            1 + signs[2] * rng.uniform(0.5, 1, n) * 2.0 ** rng.integers(-52, 0, n),
            nearby,
        ]
    )


def ulps(got, near, rest):
    """By how many ulp `got` is off near + rest ulp, where an ulp is the step of its dtype at `near`; NaN must meet NaN."""
    limits = np.finfo(got.dtype)
    exponent = np.where(np.isinf(near), limits.maxexp, np.maximum(np.frexp(near)[1], limits.minexp + 1))
    step = exponent - limits.nmant - 1
    scale = np.where(exponent > 0, -1, 1)  # inf is taken for the next power of two, which is no double otherwise
    scaled = [
        np.where(np.isinf(v), np.copysign(np.ldexp(0.5, limits.maxexp), v), np.ldexp(v.astype(np.float64), scale))
        for v in (got, near)
    ]
    with np.errstate(invalid="ignore"):
        error = np.abs(np.ldexp(scaled[0] - scaled[1], -scale - step) - rest)
    return np.where(np.isnan(got) & np.isnan(near), 0, np.where(np.isnan(error), INF, error))


def float_ulps(name, got, x):
    with np.errstate(invalid="ignore"):  # a signalling NaN is one of the patterns
        near = getattr(torch, name)(torch.from_numpy(x.astype(np.float64))).numpy()
    beyond = np.abs(near) > np.finfo(np.float32).max
    return ulps(got, np.where(beyond, np.copysign(INF, near), near), 0)


EXACT = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
}
DOMAIN = {"log": 0, "log1p": -1}  # the function is real above


def reference(name, x):
    """Of doubles: the nearest double, and what is missing to the exact result, in ulp."""
    near, rest = np.full_like(x, NAN), np.zeros_like(x)
    with mpmath.workprec(160):
        for i, v in enumerate(map(float, x)):
            if math.isnan(v) or v < DOMAIN.get(name, -INF):
                continue
            if abs(v) > 1e4 and name not in DOMAIN:  # a limit, however far
                v = math.copysign(1e4, v)
            if v == DOMAIN.get(name):
                near[i] = -INF
                continue
            exact = EXACT[name](mpmath.mpf(v))
            near[i] = float(exact)
            if math.isfinite(near[i]):
                rest[i] = float(
                    (exact - mpmath.mpf(near[i])) / mpmath.ldexp(1, max(math.frexp(near[i])[1] - 53, -1074))
                )
    return near, rest


@functools.cache
def points_of(name, count=2400, seed=0):
    x = doubles(name, count, seed)
    return x, *reference(name, x)


def assert_within(name, x, error):
    worst, bound = error.argmax(), BOUNDS[name][DTYPES.index(x.dtype)]
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]:.3f} ulp, allowed {bound}"


@pytest.mark.parametrize("name", BOUNDS)
def test_errors_of_float_are_within_the_table(f, name):
    x = floats(name, 4099)
    assert_within(name, x, float_ulps(name, f(name, x), x))


@pytest.mark.parametrize("name", BOUNDS)
def test_errors_of_double_are_within_the_table(f, name):
    x, near, rest = points_of(name)
    assert_within(name, x, ulps(f(name, x), near, rest))


def test_an_error_is_seen():
    x = np.float32([1.0, 1.5, 3e38, 1e-45, NAN, 1.0, INF, INF])
    off = np.float32([1 + 2**-23, 1.5, INF, 0.0, 1.0, NAN, INF, np.finfo(np.float32).max])
    error = ulps(off, x.astype(np.float64), 0)
    assert error[0] == 1
    assert error[1] == 0
    assert error[2] > 1e5
    assert error[3] == 1
    assert error[4] == error[5] == INF
    assert error[6] == 0
    assert error[7] == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_exact(f, name, dtype):
    x, expected = np.array([*LIMITS[name], (NAN, NAN)], dtype).T
    assert_same_bits(f(name, x), np.ascontiguousarray(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_smallest_numbers_are_not_flushed(f, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([1, 2, 3, 1000, -1, -7], dtype) * tiny
    for name in ("expm1", "log1p", "tanh"):
        assert_same_bits(f(name, x), x)
    least = np.array([math.log(float(tiny)) + 1e-3], dtype)  # half of it would be rounded to 0
    for name in ("exp", "sigmoid"):
        assert f(name, least) == tiny
    assert f("log", x[:1])[0] == dtype(math.log(float(tiny)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_are_odd_bit_for_bit(f, name, dtype):
    x = floats(name, 65537)
    x = x[~np.isnan(x)].astype(dtype)
    assert_same_bits(f(name, -x), -f(name, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BOUNDS)
def test_a_part_of_a_vector_has_the_bits_of_the_whole(f, name, dtype):
    x = np.random.default_rng(0).uniform(0.1, 3, 4 * f.lanes(dtype)).astype(dtype)
    whole = f(name, x)
    for n in range(1, len(x)):
        assert_same_bits(f(name, x[:n]), whole[:n])


def mixed(dtype, n, seed):
    """Numbers, both zeros, infinities and NaN, in any order."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n).astype(dtype)
    return np.where(rng.random(n) < 0.5, rng.choice([0.0, -0.0, INF, -INF, NAN, 1.0], n), x).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["abs", "sign", "relu"])
def test_as_torch(f, name, dtype):
    x = mixed(dtype, 1003, 1)
    assert_same_bits(f(name, x), getattr(torch, name)(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_maximum_and_minimum_are_nan_where_either_is(f, name, dtype):
    a, b = mixed(dtype, 1024, 2), mixed(dtype, 1024, 3)
    got = f(name, np.concatenate([a, b]), n=1024)[:1024]
    expected = getattr(torch, name)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert_same_bits(got, np.where((a == 0) & (b == 0), b, expected))  # torch takes either of two zeros


@pytest.mark.parametrize("dtype", DTYPES)
def test_hsum_adds_in_one_order(f, dtype):
    lanes = f.lanes(dtype)
    x = np.random.default_rng(4).standard_normal((100, lanes)).astype(dtype)
    tree = x
    while tree.shape[1] > 1:
        half = tree.shape[1] // 2
        tree = tree[:, :half] + tree[:, half:]
    assert_same_bits(f("hsum", x.ravel())[:100], tree[:, 0])


def test_it_compiles_for_each_target(library):
    target, path = library
    assert path.is_file(), target


def main(stride):
    """Prints the table of math.h: the largest errors of all targets that run here, and where."""
    with tempfile.TemporaryDirectory() as folder:
        able = [t for t, needs in TARGETS.items() if torch.backends.cpu.get_cpu_capability() in needs]
        functions = [Compiled(compiled(t, Path(folder))) for t in able]
        print(f"{', '.join(able)}; every {stride}th float")
        for name in BOUNDS:
            worst = [[(0.0, 0.0)] * len(functions) for _ in DTYPES]
            for piece in range(64):
                x = floats(name, 64 * stride, piece * stride)
                points = points_of.__wrapped__(name, seed=piece)
                for i, g in enumerate(functions):
                    errors = float_ulps(name, g(name, x), x), ulps(g(name, points[0]), *points[1:])
                    for row, error, at in zip(worst, errors, (x, points[0]), strict=True):
                        row[i] = max(row[i], (error.max(), at[error.argmax()].item()))
            for dtype, row in zip(DTYPES, worst, strict=True):
                print(f"{name:8}{dtype.__name__:8}", *(f"  {error:.3f} at {at!r}" for error, at in row), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 61)
