"""Time zones as the standard library reads them from the same package: never the ones of the operating system."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo


@cache
def clock(name: str) -> ZoneInfo:
    """A time zone."""
    with (files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def there(name: str, instant_ms: float) -> datetime:
    """What date and clock show in a time zone at an instant."""
    return datetime.fromtimestamp(instant_ms // 1000, UTC).astimezone(clock(name))
