"""The kernels' minimax polynomials: made by Remez's exchange, and compared with those stored in toast/kernels/src.

minimax.py      a line a polynomial; status 1 when a stored one is worse than its comment says, or is no minimax fit

Stored are float32 coefficients of an earlier fit, which had converged less: within 25 units in the last place of those
made here, and about as good (`excess`: of the largest error over that of these, rounded to float32). They stay, since
other bits would change results.
"""

import math
import os
import re
import sys

import numpy as np

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "toast", "kernels", "src")
ULPS, EXCESS = 25, 0.15


def remez(f, degree, low, high, weight):
    """Coefficients c (lowest first) with the least largest weight(x) |c(x) - f(x)| on [low, high]."""
    n = degree + 1
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(n + 1) / n)  # Chebyshev's extremes
    grid = np.linspace(low, high, 100001)
    for _ in range(30):
        # 1. the fit whose errors at these points are equal, with signs in turn
        alternating = (-1.0) ** np.arange(n + 1) / weight(x)
        *c, level = np.linalg.solve(np.column_stack([x[:, None] ** np.arange(n), alternating]), f(x))
        # 2. the next points: where its error is largest between two changes of sign
        error = weight(grid) * (np.polyval(c[::-1], grid) - f(grid))
        parts = np.split(np.arange(len(grid)), np.flatnonzero(np.diff(np.sign(error))) + 1)
        extremes = [part[np.argmax(np.abs(error[part]))] for part in parts]
        while len(extremes) > n + 1:  # one too many at an end
            extremes.pop(0 if abs(error[extremes[0]]) < abs(error[extremes[-1]]) else -1)
        if len(extremes) < n + 1 or np.max(np.abs(error)) <= abs(level) * (1 + 1e-7):
            break
        x = grid[extremes]
    return c


def stored(file, function, first, count):
    """`count` of the numbers in a function, which are there from the highest degree on -> lowest first."""
    with open(os.path.join(SOURCES, file)) as source:
        text = source.read().partition(f" {function}(")[2].partition("\n}")[0]
    numbers = re.findall(r"set1\((-?[\d.]+(?:e-?\d+)?)f\)", text)
    return [float(number) for number in numbers[first : first + count]][::-1]


erfc = np.vectorize(math.erfc)


def erfc_exponent(a):
    """q(a) of erfc(a / sqrt 2) / 2 = 2^(-a q(a)) / 2."""
    return -np.log2(erfc(a / math.sqrt(2))) / a


def root(t):
    """Of t = x^2, exact enough for the differences below."""
    return np.sqrt(np.longdouble(t))


NEAR = 1e-3  # of 0, where quotients have no value
QUARTER = 1.01 * math.pi / 4  # rounding may leave a little more than pi / 4

# name: (file, function, place of its first number there, degree, f, from, to, weight, bound by the comment there)
POLYNOMIALS = {
    "2^r / 2, relative": (
        "vec.h", "half_exp2", 0, 5, lambda r: 2.0**r / 2, -0.5, 0.5, lambda r: 2 / 2.0**r, 2e-7,
    ),
    "erfc(a / sqrt 2) / 2 by its exponent": (
        "activation.h", "half_erfc_sqrt2", 1, 7, erfc_exponent, NEAR, 5.5,
        lambda a: a * math.log(2) * erfc(a / math.sqrt(2)) / 2, 1e-7,
    ),
    "sin x = x + x^3 p(x^2)": (
        "rope.cpp", "cos_sin", 5, 2, lambda t: ((np.sin(root(t)) - root(t)) / root(t) ** 3).astype(float),
        NEAR, QUARTER**2, lambda t: t**1.5, 2e-7,
    ),
    "cos x = 1 - x^2 / 2 + x^4 p(x^2)": (
        "rope.cpp", "cos_sin", 8, 2, lambda t: ((np.cos(root(t)) - 1 + root(t) ** 2 / 2) / root(t) ** 4).astype(float),
        NEAR, QUARTER**2, lambda t: t**2, 2e-7,
    ),
}  # fmt: skip


def ulps(a, b):
    """How many float32 lie between a and b, at most."""
    a, b = (np.asarray(x, np.float32).view(np.int32).astype(int) for x in (a, b))
    return int(np.max(np.abs(a - b)))


def compare(name):
    """Print a polynomial's line; whether it is as good as promised."""
    file, function, first, degree, f, low, high, weight, bound = POLYNOMIALS[name]
    made, kept = remez(f, degree, low, high, weight), stored(file, function, first, degree + 1)
    if kept[0] == 0.5:
        made[0] = 0.5  # 2^0 / 2 is exact
    made = np.asarray(made, np.float32).astype(float)
    x = np.linspace(low, high, 100001)
    least, error = (np.max(weight(x) * np.abs(np.polyval(c[::-1], x) - f(x))) for c in (made, kept))
    apart, excess = ulps(made, kept), error / least - 1
    print(f"{name:38} error {error:.2e} (bound {bound:.0e}, excess {excess:+.2%}), {apart} ulps from {made.tolist()}")
    return error <= bound and apart <= ULPS and excess <= EXCESS


if __name__ == "__main__":
    sys.exit(sum(not compare(name) for name in POLYNOMIALS))
