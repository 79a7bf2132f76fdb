from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import AfterValidator, ConfigDict, Field, field_validator

from headrace.errors import DefinitionError
from headrace.expression import col
from headrace.source import ContractField, Event, EventTime, Outcomes, Source, contract_of


class Departure(Event):
    """A contract with every kind of field and constraint."""

    origin: str
    departed_at: EventTime
    delay: float
    seats: Annotated[int, Field(ge=1, lt=1_000)]
    cancelled: bool
    cabin: Literal["economy", "business"]
    carrier: Annotated[str, Field(min_length=2)] = Field(max_length=3, pattern="^[A-Z0-9]+$", description="IATA")
    distance: float | None = Field(default=None, gt=0)
    landed_at: EventTime | None = None


def test_contract() -> None:
    """A contract becomes plain fields, in order, with everything it says."""
    assert contract_of(Departure) == (
        ContractField(name="origin", kind="text"),
        ContractField(name="departed_at", kind="time"),
        ContractField(name="delay", kind="number"),
        ContractField(name="seats", kind="integer", ge=1, lt=1_000),
        ContractField(name="cancelled", kind="boolean"),
        ContractField(name="cabin", kind="text", choices=("economy", "business")),
        ContractField(name="carrier", kind="text", min_length=2, max_length=3, pattern="^[A-Z0-9]+$"),
        ContractField(name="distance", kind="number", optional=True, gt=0),
        ContractField(name="landed_at", kind="time", optional=True),
    )


def test_canonical_covers_everything() -> None:
    """Whatever decides about events or state changes the canonical form."""

    class Longer(Event):
        origin: str
        departed_at: EventTime
        delay: float

    class Bounded(Event):
        origin: str
        departed_at: EventTime
        delay: float = Field(ge=0)

    def source(topic: str = "t", event: type[Event] = Longer, **changed: Any) -> dict[str, object]:
        return Source(topic, event, **{"key": "origin", "time": "departed_at", **changed}).canonical()

    forms = [
        source(),
        source(topic="u"),
        source(event=Bounded),
        source(event=Departure),
        source(lateness="1h"),
        source(max_ahead="1h"),
        source(historical=True),
    ]
    assert all(one != other for place, one in enumerate(forms) for other in forms[:place])
    assert source() == source(lateness=7_200_000, max_ahead="300s")


def event(**fields: Any) -> Callable[[], object]:
    """A contract that is declared when called; a field is a type, or a pair of type and default."""

    def declare() -> object:
        annotations = {name: one[0] if isinstance(one, tuple) else one for name, one in fields.items()}
        defaults = {name: one[1] for name, one in fields.items() if isinstance(one, tuple)}
        return contract_of(type("Wrong", (Event,), {"__annotations__": annotations, "__module__": __name__, **defaults}))

    return declare


def _validated() -> object:
    class Wrong(Event):
        x: int

        @field_validator("x")
        @classmethod
        def even(cls, x: int) -> int:
            return x - x % 2

    return contract_of(Wrong)


def _lenient() -> object:
    class Wrong(Event):
        model_config = ConfigDict(strict=False)
        x: int

    return contract_of(Wrong)


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (event(x=int | str), "Wrong.x may be of several types; declare one"),
        (event(x=int | None), "Wrong.x may be null but has no default"),
        (event(x=(int, 3)), "Wrong.x has a default"),
        (event(x=(str, Field(alias="y"))), "Wrong.x has an alias"),
        (event(x=list[int]), "Wrong.x is list.int."),
        (event(x=Literal["a", 1]), "Wrong.x is .*Literal"),
        (event(x=(float, Field(multiple_of=3))), "Wrong.x is constrained by MultipleOf"),
        (event(x=(float, Field(ge=float("-inf")))), "a bound is a finite number"),
        (event(x=(str, Field(strict=False))), "Wrong.x is constrained by Strict"),
        (event(x=(bool, Field(ge=1))), "readers agree on nothing only"),
        (event(x=(Literal["a"], Field(min_length=1))), "readers agree on nothing only"),
        (event(x=Annotated[int, AfterValidator(abs)]), "Wrong.x is constrained by AfterValidator"),
        (event(), "Wrong declares no fields"),
        (_validated, "Wrong has Python code in its contract .field_validators."),
        (_lenient, "Wrong changes model_config"),
        (lambda: contract_of(Event), "is no contract"),
        (lambda: contract_of(int), "is no contract"),  # type: ignore[arg-type]
    ],
)
def test_refused_contracts(declare: Callable[[], object], says: str) -> None:
    """What two readers could decide differently is refused, with the field and the fix."""
    with pytest.raises(DefinitionError, match=says):
        declare()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"topic": "a topic"}, "'a topic' is no topic name"),
        ({"topic": ".."}, "no topic name"),
        ({"key": "gate"}, "key='gate' is no field of Departure; it has origin, departed_at"),
        ({"key": "seats"}, "key='seats' must be declared as str, never optional"),
        ({"time": "seats"}, "time='seats' must be declared as hr.EventTime"),
        ({"time": "landed_at"}, "time='landed_at' must be declared as hr.EventTime, never optional"),
        ({"lateness": "soon"}, "lateness is 'soon'"),
        ({"max_ahead": -1}, "max_ahead is -1 ms"),
    ],
)
def test_refused_sources(changed: dict[str, Any], says: str) -> None:
    """A source names what is wrong with it."""
    given = {"topic": "t", "key": "origin", "time": "departed_at", **changed}
    with pytest.raises(DefinitionError, match=rf"^Source\(.*{says}"):
        Source(given.pop("topic"), Departure, **given)


def test_ahead() -> None:
    """An event may lie exactly max_ahead beyond its record, not a millisecond more; a historical source does not look."""
    timestamps = np.array([1_000, 1_000, 1_000, 1_000])
    times = timestamps + np.array([-5_000, 299_999, 300_000, 300_001])
    source = Source("t", Departure, key="origin", time="departed_at", max_ahead="5m")
    assert source.ahead(times, timestamps).tolist() == [False, False, False, True]
    historical = Source("t", Departure, key="origin", time="departed_at", max_ahead="5m", historical=True)
    assert historical.ahead(times, timestamps).tolist() == [False] * 4


def test_kinds() -> None:
    """Expressions see numbers, conditions and text."""
    kinds = Source("t", Departure, key="origin", time="departed_at").kinds
    assert [kinds[name] for name in ("seats", "departed_at", "cancelled", "cabin")] == ["number", "number", "boolean", "text"]


def test_outcomes() -> None:
    """Outcomes are checked against their own contract."""
    outcomes = Outcomes("arrivals", Departure, join="origin", value=col("delay") > 15, within="24h")
    assert outcomes.within_ms == 86_400_000
    assert outcomes.canonical()["value"] == {"op": "gt", "of": [{"field": "delay"}, 15.0]}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"join": "gate"}, "join='gate' is no field"),
        ({"value": col("gate") > 1}, "no field 'gate'"),
        ({"value": col("cabin")}, "is text; compare it"),
        ({"within": 0}, "within is 0 ms"),
    ]
    for changed, says in refused:
        with pytest.raises(DefinitionError, match=says):
            Outcomes("arrivals", Departure, **{"join": "origin", "value": col("delay") > 15, "within": "24h", **changed})
