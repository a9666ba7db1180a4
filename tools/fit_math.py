"""Fits the polynomials of `src/recurra/kernels/cpu/math.h` and prints them as they stand there.

    python tools/fit_math.py        # all, about a minute
    python tools/fit_math.py TANH   # one

Each row of FITS is one polynomial: what it approximates, on which interval, and how its error is weighed, so that it is
relative to the function that is made from it. They are fitted by the Remez exchange at 80 digits, then rounded to the
type. The error that is printed is that of the rounded polynomial, evaluated without rounding, in units of half an ulp
of 1 (2^-24 for float, 2^-53 for double).
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath
from mpmath import mp, mpf

mp.dps = 80

BITS = {"float": 24, "double": 53}


class Fit(NamedTuple):
    name: str  # of the array in math.h
    what: str  # the comment above it
    target: Callable[[mpf], mpf]  # what the polynomial approximates
    weight: Callable[[mpf], mpf]  # the error of the polynomial times this is the relative error of the result
    low: mpf
    high: dict[str, mpf]  # by type
    counts: dict[str, int]  # coefficients, by type
    before: tuple[str, ...] = ()  # coefficients in front of those fitted, which are exact


def series(function: Callable[[mpf], mpf], limit: mpf) -> Callable[[mpf], mpf]:
    """`function`, and its limit next to 0, where it is 0 / 0."""
    return lambda x: limit if abs(x) < mpf("1e-20") else function(x)


def of_square(function: Callable[[mpf], mpf], limit: mpf) -> Callable[[mpf], mpf]:
    """`function` of x as one of z = x^2."""
    return series(lambda z: function(mpmath.sqrt(z)), limit)


def both(x: mpf) -> dict[str, mpf]:
    return dict.fromkeys(BITS, x)


# Wider by a hair: the rounding of x / ln 2 may choose the farther integer, and sqrt(2) is rounded.
HALF_LN2 = mpmath.log(2) / 2 * mpf("1.0001")
SQRT2 = mpmath.sqrt(2) * mpf("1.0001")
LARGEST_S = (SQRT2 - 1) / (SQRT2 + 1)
TANH_SMALL = mpf("0.5501")

FITS = [
    Fit(
        "EXP",
        "exp(r) = 1 + r + r^2 p(r), |r| <= ln(2) / 2",
        series(lambda r: (mpmath.expm1(r) - r - r**2 / 2) / r**3, mpf(1) / 6),
        lambda r: r**3 / mpmath.exp(r),
        -HALF_LN2,
        both(HALF_LN2),
        {"float": 4, "double": 9},
        ("0.5",),
    ),
    Fit(
        "EXPM1",
        "expm1(r) = r + r^2 p(r), |r| <= ln(2) / 2",
        series(lambda r: (mpmath.expm1(r) - r - r**2 / 2) / r**3, mpf(1) / 6),
        series(lambda r: r**3 / mpmath.expm1(r), mpf(0)),
        -HALF_LN2,
        both(HALF_LN2),
        {"float": 5, "double": 10},
        ("0.5",),
    ),
    Fit(
        "TANH",
        "tanh(x) = x + x^3 p(x^2), |x| <= 0.55",
        of_square(lambda x: (mpmath.tanh(x) - x) / x**3, mpf(-1) / 3),
        of_square(lambda x: x**3 / mpmath.tanh(x), mpf(0)),
        mpf(0),
        both(TANH_SMALL**2),
        {"float": 4, "double": 10},
    ),
    Fit(
        "LOG",
        "2 atanh(s) = 2 s + s^3 p(s^2), |s| <= (sqrt(2) - 1) / (sqrt(2) + 1)",
        of_square(lambda s: 2 * (mpmath.atanh(s) - s) / s**3, mpf(2) / 3),
        of_square(lambda s: s**3 / (2 * mpmath.atanh(s)), mpf(0)),
        mpf(0),
        both(LARGEST_S**2),
        {"float": 3, "double": 7},
    ),
    Fit(
        "ERF",
        "erf(x) = x + x p(x^2), |x| <= 1",
        of_square(lambda x: mpmath.erf(x) / x - 1, 2 / mpmath.sqrt(mpmath.pi) - 1),
        of_square(lambda x: x / mpmath.erf(x), mpmath.sqrt(mpmath.pi) / 2),
        mpf(0),
        both(mpf(1)),
        {"float": 7, "double": 12},
    ),
    Fit(
        "ERFC",
        "erf(x) = 1 - exp(p(x)), 1 <= x, up to where it is 1",
        lambda x: mpmath.log(mpmath.erfc(x)),
        lambda x: mpmath.erfc(x) / mpmath.erf(x),
        mpf(1),
        {"float": mpf(4), "double": mpf(6)},
        {"float": 7, "double": 19},
    ),
]


def horner(coefficients: Sequence[mpf], x: mpf) -> mpf:
    value = mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def nodes(low: mpf, high: mpf, count: int) -> list[mpf]:
    """Chebyshev points, ascending, the ends included."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mpmath.cos(mpmath.pi * i / (count - 1)) for i in range(count)]


def remez(fit: Fit, high: mpf, count: int) -> list[mpf]:
    """The coefficients with the least largest weighed error: it alternates between count + 1 extremes of one size."""
    grid = nodes(fit.low, high, 24 * count)
    targets, weights = [fit.target(x) for x in grid], [abs(fit.weight(x)) for x in grid]

    def solved(points: Sequence[mpf], values: Sequence[mpf], levels: Sequence[mpf]) -> list[mpf]:
        """Coefficients, and one unknown more: the error at point i is that times levels[i]."""
        rows = [[x**k for k in range(count)] + [level] for x, level in zip(points, levels, strict=True)]
        return list(mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix(list(values))))[:count]

    # At first without error at as many points as there are coefficients; at the end it may be anything.
    points = [*nodes(fit.low, high, 2 * count + 1)[1::2], high]
    coefficients = solved(points, [fit.target(x) for x in points], [*[mpf(0)] * count, mpf(1)])
    while True:
        errors = [w * (horner(coefficients, x) - t) for x, t, w in zip(grid, targets, weights, strict=True)]
        extremes: list[int] = []  # the largest of each run of one sign
        for i, error in enumerate(errors):
            if not extremes or (error > 0) != (errors[extremes[-1]] > 0):
                extremes.append(i)
            elif abs(error) > abs(errors[extremes[-1]]):
                extremes[-1] = i
        while len(extremes) > count + 1:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        assert len(extremes) == count + 1, f"{fit.name}: the error alternates {len(extremes)} times"
        sizes = [abs(errors[i]) for i in extremes]
        if max(sizes) < min(sizes) * mpf("1.01"):
            return coefficients
        levels = [mpf((-1) ** k) / weights[i] for k, i in enumerate(extremes)]
        coefficients = solved([grid[i] for i in extremes], [targets[i] for i in extremes], levels)


def rounded(x: mpf, bits: int) -> mpf:
    with mpmath.workprec(bits):
        return +x


def hexadecimal(x: mpf, kind: str) -> str:
    digits, power = float(x).hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{int(power)}{'f' if kind == 'float' else ''}"


def main(names: Sequence[str]) -> None:
    for kind, bits in BITS.items():
        print(f"{kind}:")
        # ln 2 in two parts: the first has so few bits that its product with any exponent is exact without fma().
        short = {"float": 15, "double": 40}[kind]
        high = mpmath.floor(mpmath.log(2) * 2**short) / mpf(2) ** short
        low = rounded(mpmath.log(2) - high, bits)
        print(f"    static constexpr {kind} LN2_HIGH = {hexadecimal(high, kind)}, LN2_LOW = {hexadecimal(low, kind)};")
        for fit in FITS:
            if names and fit.name not in names:
                continue
            coefficients = [rounded(c, bits) for c in remez(fit, fit.high[kind], fit.counts[kind])]
            points = nodes(fit.low, fit.high[kind], 1001)
            error = max(abs(fit.weight(x) * (horner(coefficients, x) - fit.target(x))) for x in points) * 2**bits
            print(f"    // {fit.what}; error {mpmath.nstr(error, 2)} half ulp")
            numbers = ", ".join([*fit.before, *(hexadecimal(c, kind) for c in coefficients)])
            line = f"    static constexpr {kind} {fit.name}[] = {{{numbers}}};"
            print(textwrap.fill(line, 120, subsequent_indent=" " * (line.index("{") + 1)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
