"""What the gate allows (pure): sizes, operators, tolerances, times, and the limits of the process that examines.

Two kinds of figures stand here. Those of the process (`address_bytes`, `cpu_s`, `wall_s`) end whatever a file makes it do; a good model
never comes near them. The others are what a deployment asks of a good model, and may be set by taste.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """The figures a model is examined with."""

    file_bytes: int = 256 << 20
    """The largest file."""
    nodes: int = 1_000_000
    """The most nodes, with functions in the place of their calls."""
    domains: tuple[str, ...] = ("", "ai.onnx.ml")
    """Whose operators may be used; "" is ONNX itself, also written ai.onnx."""
    operators: tuple[str, ...] = ()
    """Operators that are refused otherwise and allowed here, by name: Loop, Scan, If, random ones."""
    calls_deep: int = 16
    """How deep functions of the file may call one another."""
    graphs_deep: int = 4
    """How deep graphs may stand in graphs."""

    golden_rows: int = 1
    """The fewest golden rows a file must carry."""
    golden_tolerance: float = 1e-4
    """How far a score may be from the golden one: absolute for probabilities, else relative to the largest golden score."""
    golden_share: float = 0.01
    """The share of golden rows that may be further off: trees compare thresholds, so float32 takes a row to another leaf now and then."""
    golden_worst: float = 0.05
    """How far those may be off, as the tolerance is measured."""
    row_tolerance: float = 1e-5
    """How far a row's score alone may be from its score among others, as above: kernels differ in the last bits."""
    refused_share: float = 0.5
    """The share of the rehearsal's events for which it may have no score."""

    call_us: float = 50_000
    """The longest call for one row, in microseconds."""
    row_us: float = 1_000
    """The longest time a row takes in a batch of `BATCH` rows, in microseconds."""
    model_bytes: int = 2 << 30
    """The most memory that loading it and scoring a large batch may take."""

    address_bytes: int = 6 << 30
    """The address space of the process that examines."""
    cpu_s: int = 15
    """Its CPU time, counted from when it is handed the file."""
    wall_s: float = 60
    """The time it has in all, its start included."""


DEFAULT_LIMITS = GateLimits()
BENCH_LIMITS = GateLimits(cpu_s=60, wall_s=240)
"""Nothing is refused for its cost where costs are all that is asked for, so there is time for what is slow."""
BENCH_SIZES = (1, 64, 1_024, 16_384)
"""The batches whose time `measure` takes."""
BATCH, LARGE_BATCH = 256, 4_096
"""The batches whose time is taken, beside single rows."""
