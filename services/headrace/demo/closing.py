"""The closing report as people read it; `report.py` has the same as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.demo.events import LATE_MINUTES
from headrace.demo.report import MODEL, Judged, Report

if TYPE_CHECKING:
    from headrace.demo.boarding_replay import Boarded
    from headrace.demo.versions import Versions

BAR = 20
LEAST_SHOWN = 0.05
NAMES = {"auc": "AUC", "brier": "Brier", "log_loss": "log loss"}


def show(report: Report, console: Console) -> None:
    """Print the report, section by section."""
    console.print()
    _records(report, console)
    _times(report, console)
    _versions(report.versions, console)
    if report.judged is not None:
        show_judged(report.judged, f"{report.model['name']} version {report.model['version']}", console)
    if report.boarded is not None:
        _boarded(report.boarded, console)
    failures = report.failures()
    for failure in failures:
        console.print(Text.assemble(("NOT RIGHT  ", "bold red"), failure))
    if not failures:
        console.print(Text.assemble(("OK  ", "bold green"), "one prediction or dead letter for every record, every reason right"))


def _records(report: Report, console: Console) -> None:
    refused = sum(report.dead_letters.values())
    console.print(
        Text.assemble(
            (f"{report.records:,} records", "bold"),
            f" = {report.predictions:,} predictions + {refused:,} dead letters; {report.late:,} late",
        )
    )
    if report.planted:
        table = _table("planted among the flights", "records", "became")
        for one in report.planted:
            became = ", ".join(f"{reason} {count}" if len(one.became) > 1 else reason for reason, count in one.became.items())
            table.add_row(one.kind, f"{one.planted}", Text(became, style="" if one.right else "red"))
        table.add_section()
        table.add_row("dead letters", f"{refused}", ", ".join(f"{reason} {count}" for reason, count in report.dead_letters.items()))
        console.print(table)
    console.print()


def _times(report: Report, console: Console) -> None:
    console.print(Text.assemble((f"{report.events_per_second:,.0f} events/s", "bold"), " through the whole loop"))
    console.print(
        f"{report.loop_p50_ms:.0f} ms (p50), {report.loop_p99_ms:.0f} ms (p99) from the poll of a batch to its commit", highlight=False
    )
    for title, unit, spent in (("microseconds a record", "", report.stage_us), ("seconds", " s", report.seconds)):
        shown = ", ".join(f"{name} {value:.1f}{unit}" for name, value in spent.items() if value >= LEAST_SHOWN)
        console.print(Text(f"{title}: {shown}", style="dim"))
    console.print()


def _versions(versions: Versions, console: Console) -> None:
    topic = next((switched.topic for switched in versions.switches), "")
    console.print(
        Text.assemble(
            ("Versions of the model", "bold"), f", moved on the way; each change holds from these offsets of {topic} on, by the facts"
        )
    )
    partitions = sorted({number for switched in versions.switches for number in switched.offsets})
    table = _table("change", "events before", *(f"p{number}" for number in partitions))
    for switched in versions.switches:
        offsets = (f"{switched.offsets[number]:,}" if number in switched.offsets else "" for number in partitions)
        table.add_row(switched.did, f"{switched.held_after:,}", *offsets)
    console.print(table)
    console.print()
    table = _table("version", "predictions", "as shadow", "bytes", "the gate")
    for one in versions.registered:
        counts = (f"{of.get(one.version, 0):,}" for of in (versions.predictions, versions.shadowed))
        table.add_row(one.version, *counts, f"{one.bytes:,}", one.gate)
    console.print(table)
    console.print()
    if versions.compared:
        table = _table("AUC on the same flights", "flights", *(f"version {one.version}" for one in versions.registered))
        for compared in versions.compared:
            table.add_row(f"{compared.which}, {compared.when}", f"{compared.flights:,}", *(f"{auc:.4f}" for auc in compared.auc.values()))
        console.print(table)
        console.print("where version 2 answered, version 1 is asked about the vectors that were published", style="dim", highlight=False)
        console.print()


def show_judged(judged: Judged, model: str, console: Console) -> None:
    """Print how good the scores of July to December are."""
    console.print(
        Text.assemble(
            ("July to December", "bold"),
            f": {judged.events:,} flights arrived, {judged.late_share:.1%} more than {LATE_MINUTES} minutes late",
        )
    )
    console.print(
        f"{model}, trained on January to June, against itself without airport and airline, departure delay, and a constant", highlight=False
    )
    table = _table("predictor", *NAMES.values())
    for name, found in judged.by_predictor.items():
        style = "bold" if name == MODEL else ""
        table.add_row(Text(name, style=style), *(Text(f"{getattr(found, field):.4f}", style=style) for field in NAMES))
    console.print(table)
    console.print()
    table = _table("chance said", "flights", "said", "came late", "")
    for part in judged.calibration:
        table.add_row(
            f"{part.low:.0%} to {part.high:.0%}",
            f"{part.events:,}",
            f"{part.predicted:.1%}",
            f"{part.observed:.1%}",
            _bar(part.observed),
        )
    console.print(table)
    console.print(f"calibration error {judged.calibration_error:.2%}: said against came, weighted by flights", highlight=False)
    console.print()


def _boarded(boarded: Boarded, console: Console) -> None:
    console.print(
        Text.assemble(
            ("Two weeks of December, said when the flight boards", "bold"),
            f": {boarded.predictions:,} flights, scored by what departures had done to their aircraft, airport and airline up to then",
        )
    )
    table = _table("predictor", "AUC")
    table.add_row(Text("with what is looked up", style="bold"), Text(f"{boarded.auc:.4f}", style="bold"))
    table.add_row("timetable alone", f"{boarded.auc_without:.4f}")
    console.print(table)
    console.print(
        f"{boarded.stale:,} were marked stale (nothing had left for half an hour), {boarded.ahead:,} ahead; {boarded.seconds:.1f} s",
        highlight=False,
    )
    console.print()


def _bar(share: float) -> Text:
    return Text("#" * round(share * BAR), style="cyan")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column in ("became", "the gate", "") else "right")
    return table
