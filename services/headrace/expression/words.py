"""The words beside `hr.col` that make expressions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from headrace.errors import DefinitionError
from headrace.expression.category import Buckets, Table
from headrace.expression.tree import Expression, call, col
from headrace.expression.zone import zone_of

_FEWEST_BUCKETS, _MOST_BUCKETS = 2, 1 << 31


def hour(instant: str | Expression, *, tz: str) -> Expression:
    """The hour, 0 to 23, that the clock of the time zone `tz` shows at an instant: an `hr.EventTime` or whole milliseconds UTC."""
    return call("hour", _expression(instant), given=zone_of(tz))


def weekday(instant: str | Expression, *, tz: str) -> Expression:
    """The day of the week in the time zone `tz` at an instant, 0 (Monday) to 6: an `hr.EventTime` or whole milliseconds UTC."""
    return call("weekday", _expression(instant), given=zone_of(tz))


def haversine_km(
    lat1: str | Expression | float, lon1: str | Expression | float, lat2: str | Expression | float, lon2: str | Expression | float
) -> Expression:
    """The great-circle distance of two places in kilometres; latitudes and longitudes are degrees, as fields, expressions or numbers.

    On a sphere of the earth's mean radius, 6,371.0088 km: up to 0.6 % from the distance on the ellipsoid. Absent where a latitude is
    beyond 90 degrees or a longitude beyond 360.
    """
    return call("haversine_km", *(_expression(one) if isinstance(one, str) else one for one in (lat1, lon1, lat2, lon2)))


def mapped(
    value: str | Expression, mapping: Mapping[str, float] | Mapping[int, float], *, other: float | None = None, absent: float | None = None
) -> Expression:
    """The number that `mapping` declares for a text or a whole number.

    `other` is the number of values that are not listed, `absent` of events without a value; None, the default, leaves both absent.
    """
    where = f"hr.mapped({value!r}, ...)"
    kinds = {isinstance(key, str) for key in mapping}
    if len(kinds) != 1 or not all(type(key) in {str, int} for key in mapping):
        raise DefinitionError(f'{where}: list at least one value, all texts or all whole numbers, for example {{"AA": 0, "UA": 1}}')
    numbers = {key if isinstance(key, str) else float(key): _number(number, where) for key, number in mapping.items()}
    table = Table(numbers=numbers, other=_number_or_absent(other, f"{where}: other"), absent=_number_or_absent(absent, f"{where}: absent"))
    return call("mapped" if kinds == {True} else "mapped_number", _expression(value), given=table)


def hashed(value: str | Expression, *, buckets: int, absent: float | None = None) -> Expression:
    """A text as the number of a bucket, 0 to `buckets` - 1, by a hash that is the same everywhere and for ever.

    The bucket is the first 8 bytes of the text's SHA-256, modulo `buckets`. `absent` is the number of events without a text; None, the
    default, leaves them absent.
    """
    where = f"hr.hashed({value!r}, ...)"
    if type(buckets) is not int or not _FEWEST_BUCKETS <= buckets <= _MOST_BUCKETS:
        raise DefinitionError(f"{where}: buckets={buckets!r} must be a whole number from {_FEWEST_BUCKETS} to {_MOST_BUCKETS:,}")
    return call("hashed", _expression(value), given=Buckets(count=buckets, absent=_number_or_absent(absent, f"{where}: absent")))


def _expression(one: str | Expression) -> Expression:
    return col(one) if isinstance(one, str) else one


def _number(number: object, where: str) -> float:
    if not isinstance(number, (bool, int, float)) or not math.isfinite(number):
        raise DefinitionError(f"{where}: {number!r} is no finite number")
    return float(number)


def _number_or_absent(number: float | None, where: str) -> float:
    return math.nan if number is None else _number(number, where)
