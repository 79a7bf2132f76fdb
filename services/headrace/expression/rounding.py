"""Functions that are spelled out, because those of C libraries differ in the last bits: the same bits on every machine.

All are fdlibm's (Sun, 1993), written over columns: additions, multiplications, divisions and square roots, which IEEE 754 rounds
correctly and numpy does one at a time. Angles are degrees, so that they are brought into the first octant exactly.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from headrace.types import Float64s

EARTH_RADIUS_KM = 6371.0088
"""The mean radius of the earth (IUGG)."""
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
_COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
_ASIN_OVER = (
    1.66666666666666657415e-01,
    -3.25565818622400915405e-01,
    2.01212532134862925881e-01,
    -4.00555345006794114027e-02,
    7.91534994289814532176e-04,
    3.47933107596021167570e-05,
)
_ASIN_UNDER = (1.0, -2.40339491173441421878e00, 2.02094576023350569471e00, -6.88283971605453293030e-01, 7.70381505559019352791e-02)
_HALF_PI_LOW, _QUARTER_PI = 6.12323399573676603587e-17, 7.85398163397448278999e-01
_SERIES_END = 0.5
_POLE, _TURN = 90.0, 360.0
_HIGH_WORD = np.uint64(0xFFFF_FFFF_0000_0000)


def log1p(x: Float64s) -> Float64s:
    """The logarithm of 1 + x, with the rounding error of 1 + x put back in the first order; good to about one ulp."""
    rounded = 1.0 + x
    lost = np.where(np.abs(x) < 1.0, x - (rounded - 1.0), 1.0 - (rounded - x)) / rounded
    fraction, exponent = np.frexp(rounded)
    low = fraction < math.sqrt(0.5)
    f = np.where(low, fraction * 2.0, fraction) - 1.0
    k = exponent.astype(np.float64) - low
    s = f / (2.0 + f)
    z = s * s
    series = z * _polynomial(z, _LOG)
    half = 0.5 * f * f
    found = k * _LN2_HIGH - ((half - (s * (half + series) + (k * _LN2_LOW + lost))) - f)
    return np.where(x > -1.0, np.where(np.abs(x) < 2.0**-54, x, found), np.nan)


def sine(degrees: Float64s) -> Float64s:
    """The sine of an angle of up to a few turns; good to about one ulp, and exact at every right angle."""
    return _turned(degrees, 0)


def cosine(degrees: Float64s) -> Float64s:
    """The cosine of an angle of up to a few turns; good to about one ulp, and exact at every right angle."""
    return _turned(degrees, 1)


def arcsine(x: Float64s) -> Float64s:
    """The angle, in radians, whose sine is x, for x from 0 to 0.97; good to about one ulp."""
    near = x < _SERIES_END
    half = (1.0 - x) * 0.5
    t = np.where(near, x * x, half)
    ratio = t * _polynomial(t, _ASIN_OVER) / _polynomial(t, _ASIN_UNDER)
    root = np.sqrt(half)
    high = (root.view(np.uint64) & _HIGH_WORD).view(np.float64)
    low = (half - high * high) / (root + high)
    far = _QUARTER_PI - ((2.0 * root * ratio - (_HALF_PI_LOW - 2.0 * low)) - (_QUARTER_PI - 2.0 * high))
    return np.where(near, x + x * ratio, far)


def haversine_km(lat1: Float64s, lon1: Float64s, lat2: Float64s, lon2: Float64s) -> Float64s:
    """The great-circle distance of two places on a sphere; absent where a latitude is beyond 90 or a longitude beyond 360 degrees.

    With h the haversine of the angle between them, 1 - h is a sum of squares as well; taking the smaller of the two loses nothing anywhere.
    """
    turn = 0.5 * (lon2 - lon1)
    across = cosine(lat1) * cosine(lat2)
    near = _square(sine(0.5 * (lat2 - lat1))) + across * _square(sine(turn))
    far = _square(sine(0.5 * (lat2 + lat1))) + across * _square(cosine(turn))
    angle = 2.0 * arcsine(np.sqrt(np.minimum(near, far)))
    distance = EARTH_RADIUS_KM * np.where(near <= far, angle, math.pi - angle)
    on_earth = (np.maximum(np.abs(lat1), np.abs(lat2)) <= _POLE) & (np.maximum(np.abs(lon1), np.abs(lon2)) <= _TURN)
    return np.where(on_earth, distance, np.nan)


def _turned(degrees: Float64s, quarter: int) -> Float64s:
    """The sine of an angle and some right angles more."""
    turns = np.rint(degrees / _POLE)
    rest = (degrees - _POLE * turns) * (math.pi / 180.0)
    turns += quarter
    z = rest * rest
    sine_of = rest + (z * rest) * _polynomial(z, _SIN)
    half = 0.5 * z
    whole = 1.0 - half
    cosine_of = whole + (((1.0 - whole) - half) + z * z * _polynomial(z, _COS))
    found = np.where(np.mod(turns, 2.0) == 1.0, cosine_of, sine_of)
    return np.where(np.mod(turns, 4.0) > 1.0, -found, found)


def _square(x: Float64s) -> Float64s:
    return x * x


def _polynomial(x: Float64s, factors: tuple[float, ...]) -> Float64s:
    """By Horner's rule, the constant first."""
    return reduce(lambda sum_of, factor: sum_of * x + factor, reversed(factors[:-1]), np.full_like(x, factors[-1]))
