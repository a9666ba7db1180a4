"""Fits the polynomials of src/recurra/kernels/cpu/functions.h: prints each with its interval and largest error.

Chebyshev fits in 60 digits, rounded to the type at the end. Run: ``python tools/fit_functions.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

mp.dps = 60


@dataclass(frozen=True)
class Fit:
    """A polynomial of `terms` coefficients for a function on an interval."""

    name: str
    what: str
    function: Callable[[Any], Any]
    low: Any
    high: Any
    terms: int
    dtype: type[np.floating[Any]]


def exp_rest(r: Any) -> Any:
    """``(e^r - 1 - r) / r²``, by its series where the quotient would cancel."""
    if abs(r) < mpf(1) / 8:
        return mpmath.nsum(lambda k: r**k / mpmath.factorial(k + 2), [0, 40])
    return (mpmath.exp(r) - 1 - r) / r**2


def log_rest(z: Any) -> Any:
    """``(2 atanh(s) - 2 s) / (s z)`` with ``z = s²``: what log(1 + f), s = f / (2 + f), adds to 2 s."""
    return mpmath.nsum(lambda k: 2 * z**k / (2 * k + 3), [0, 60])


def erf_small(z: Any) -> Any:
    """``erf(x) / x`` with ``z = x²``."""
    x = mpmath.sqrt(z) if z > 0 else mpf(0)
    return mpmath.erf(x) / x if x > mpf(10) ** -20 else 2 / mpmath.sqrt(mpmath.pi)


def erf_large(x: Any) -> Any:
    """``-log(erfc(x))``: erf is 1 - exp of it."""
    return -mpmath.log(mpmath.erfc(x))


HALF_LN2 = mpmath.log(2) / 2 * mpf("1.0001")
WIDEST_S2 = ((mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1)) ** 2 * mpf("1.0001")
FITS = (
    Fit("EXP_FLOAT", "(e^r - 1 - r) / r^2", exp_rest, -HALF_LN2, HALF_LN2, 5, np.float32),
    Fit("EXP_DOUBLE", "(e^r - 1 - r) / r^2", exp_rest, -HALF_LN2, HALF_LN2, 11, np.float64),
    Fit("LOG_FLOAT", "(2 atanh(s) - 2 s) / s^3, in s^2", log_rest, 0, WIDEST_S2, 4, np.float32),
    Fit("LOG_DOUBLE", "(2 atanh(s) - 2 s) / s^3, in s^2", log_rest, 0, WIDEST_S2, 9, np.float64),
    Fit("ERF_SMALL_FLOAT", "erf(x) / x, in x^2, x <= 1", erf_small, 0, 1, 7, np.float32),
    Fit("ERF_LARGE_FLOAT", "-log(erfc(x)), in x - 2, 1 <= x <= 4", lambda y: erf_large(y + 2), -1, 2, 10, np.float32),
)


def main() -> None:
    """Print the table."""
    for fit in FITS:
        coefficients, error = mpmath.chebyfit(fit.function, [fit.low, fit.high], fit.terms, error=True)
        rounded = [fit.dtype(str(c)) for c in reversed(coefficients)]  # lowest power first
        print(f"// {fit.what}; off by at most {mpmath.nstr(error, 2)} before rounding")
        suffix = "f" if fit.dtype is np.float32 else ""
        digits = 9 if suffix else 17
        print(f"{fit.name} = {{{', '.join(f'{float(c):.{digits}g}{suffix}' for c in rounded)}}}")


if __name__ == "__main__":
    main()
