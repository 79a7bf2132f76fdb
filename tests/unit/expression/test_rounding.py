from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.expression import col, haversine_km
from headrace.expression.rounding import EARTH_RADIUS_KM, arcsine, cosine, sine

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
latitudes = st.floats(-90, 90) | st.sampled_from([-90.0, 0.0, 90.0, 40.639751])
longitudes = st.floats(-180, 180) | st.sampled_from([-180.0, 0.0, 180.0, -73.778925])


def plainly(degrees: float, power: int) -> Decimal:
    """The sine (power 1) or cosine (power 0) by their series, to forty digits."""
    with localcontext() as digits:
        digits.prec = 80
        angle = Decimal(degrees) * PI / 180
        term = angle if power else Decimal(1)
        total = term
        while abs(term) > Decimal("1e-60"):
            power += 2
            term *= -angle * angle / (power * (power - 1))
            total += term
        return total


def apart_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """The distance on a sphere by another formula, good at any distance (Vincenty's, without flattening), and the C library."""
    a, b, turn = math.radians(lat1), math.radians(lat2), math.radians(lon2 - lon1)
    across = math.hypot(math.cos(b) * math.sin(turn), math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn))
    return EARTH_RADIUS_KM * math.atan2(across, math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn))


def distances(*places: tuple[float, float, float, float]) -> list[float]:
    """What the expression gives."""
    names = ("lat1", "lon1", "lat2", "lon2")
    columns = {name: np.array([place[at] for place in places]) for at, name in enumerate(names)}
    found: list[float] = haversine_km(*names).evaluate(columns).tolist()
    return found


@given(st.floats(-720, 720).filter(lambda degrees: degrees == 0 or abs(degrees) > 1e-290))
def test_sine_and_cosine(degrees: float) -> None:
    """Sine and cosine of degrees are within two units in the last place of the truth."""
    for found, power in ((float(sine(np.array([degrees]))[0]), 1), (float(cosine(np.array([degrees]))[0]), 0)):
        expected = plainly(degrees, power)
        assert abs(Decimal(found) - expected) <= 2 * Decimal(float(np.spacing(abs(float(expected))))) or abs(expected) < Decimal("1e-40")


@given(st.floats(0, 0.97))
def test_arcsine(x: float) -> None:
    """The arcsine is within two units in the last place of the C library's."""
    assert abs(float(arcsine(np.array([x]))[0]) - math.asin(x)) <= 2 * float(np.spacing(math.asin(x)))


def test_right_angles_are_exact() -> None:
    """At every right angle sine and cosine are 0, 1 or -1."""
    turns = np.arange(-8.0, 9.0)
    assert sine(90 * turns).tolist() == [(0, 1, 0, -1)[int(turn) % 4] for turn in turns]
    assert cosine(90 * turns).tolist() == [(1, 0, -1, 0)[int(turn) % 4] for turn in turns]


def test_the_bits_are_these() -> None:
    """Distances of known airports have these bits on every machine."""
    found = distances((40.639751, -73.778925, 33.942536, -118.408075), (40.639751, -73.778925, 40.692500, -74.168667), (0.1, 0, 0.2, 180))
    assert [one.hex() for one in found] == ["0x1.f0c6930f4b677p+11", "0x1.0b21a34dab8c8p+5", "0x1.3837060f5bf75p+14"]


@given(st.lists(st.tuples(latitudes, longitudes, latitudes, longitudes), min_size=1, max_size=30), st.integers(0, 29))
def test_distance(places: list[tuple[float, float, float, float]], cut: int) -> None:
    """A distance is within 1e-12 and a micrometre of another formula's, the same both ways, and the same bits in any cut into batches."""
    found = distances(*places)
    for one, place in zip(found, places, strict=True):
        expected = apart_km(*place)
        assert abs(one - expected) <= 1e-12 * expected + 1e-9
    assert [one.hex() for one in distances(*((c, d, a, b) for a, b, c, d in places))] == [one.hex() for one in found]
    parts = [distances(*part) for part in (places[:cut], places[cut:]) if part]
    assert [one.hex() for part in parts for one in part] == [one.hex() for one in found]


@given(latitudes, longitudes)
def test_distance_of_ends(lat: float, lon: float) -> None:
    """A place is 0 from itself, however often its longitude goes around, and half the earth's girth from its antipode."""
    assert distances((lat, lon, lat, lon), (lat, 180.0, lat, -180.0)) == [0.0, 0.0]
    assert distances((lat, 0.0, -lat, 180.0)) == pytest.approx([EARTH_RADIUS_KM * math.pi], rel=1e-15)


def test_neighbours() -> None:
    """Places a metre apart, and a metre short of antipodes, lose no digits."""
    metre = 180 / math.pi / EARTH_RADIUS_KM / 1000
    assert distances((0, 0, metre, 0), (0, 0, 0, metre)) == pytest.approx([0.001, 0.001], rel=1e-14)
    assert distances((0, 0, 0, 180 - metre))[0] == pytest.approx(EARTH_RADIUS_KM * math.pi - 0.001, rel=1e-15)


def test_nowhere() -> None:
    """A place that is not on earth, or not known, is no distance from anywhere."""
    wrong = [(90.1, 0, 0, 0), (0, 0, -91, 0), (0, 361, 0, 0), (0, 0, 0, -361), (math.nan, 0, 0, 0), (0, 0, 0, math.nan), (1e300, 0, 0, 0)]
    assert all(math.isnan(one) for one in distances(*wrong))


def test_how_it_is_written() -> None:
    """A distance takes fields, expressions and numbers."""
    found = haversine_km("lat", col("lon"), 40.639751, -73.778925)
    assert repr(found) == "haversine_km(lat, lon, 40.639751, -73.778925)"
    assert found.alias("km_from_jfk").name() == "km_from_jfk"
    assert found.canonical() == {"op": "haversine_km", "of": [{"field": "lat"}, {"field": "lon"}, 40.639751, -73.778925]}
