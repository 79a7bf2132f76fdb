"""`headrace verify`: check what was promised.

Exit codes: 0 nothing wrong in what was checked, 1 violations (or an error).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.definition import App
    from headrace.kafka_client import Properties
    from headrace.verify.findings import Findings
    from headrace.verify.subject import Subject
    from headrace.verify.verification import Progress, Wishes

SHOWN = 20
TOLD_EVERY_S = 1.0

app = typer.Typer(help="Check what was promised on your own topics.", add_completion=False, rich_markup_mode=None)


@app.command()
def verify(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    from_time: Annotated[str | None, typer.Option("--from", help="Compare records from this time on (ISO 8601, UTC).")] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="Compare records before this time; the state is not compared then.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Workers are at work: do not expect everything to be at rest.")] = False,
    rest_seconds: Annotated[float, typer.Option("--wait", min=0, help="How long to wait for everything to be at rest.")] = 10.0,
    seen: Annotated[
        list[Path] | None, typer.Option(help="What `headrace tail TOPIC -f --from-beginning --output json` printed meanwhile.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="The journal of a test run, JSON lines: processes, logs and faults.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="List so many violations; all are counted.")] = 1_000,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people or JSON for programs.")] = Output.TEXT,
) -> None:
    """Fold the source log again and compare everything that was published and stored with it, record by record."""
    from headrace import log
    from headrace.apps.artifacts import artifact_store
    from headrace.apps.worker import dead_letter_bytes, kafka_properties, redis_store
    from headrace.cli.definitions import load_app
    from headrace.kafka_client import knock
    from headrace.parts import Limits
    from headrace.publish.encoder import HeaderPolicy
    from headrace.settings import load
    from headrace.verify.casting import casting_by_facts
    from headrace.verify.deployment import deployment
    from headrace.verify.verification import Verification, Wishes

    settings = load(config).settings
    log.set_up(level="error", style="console", secrets=settings.secrets())
    definition = load_app(app_reference)
    wishes = Wishes(from_ms=_ms(from_time, "--from"), to_ms=_ms(to_time, "--to"), live=live, rest_ms=int(1_000 * rest_seconds), keep=limit)
    casting_of = partial(casting_by_facts, definition, artifact_store(definition, settings))
    properties = kafka_properties(settings)
    knock(properties)
    store = redis_store(definition, settings)
    store.check()
    meter = Meter()
    gc.freeze()
    gc.disable()  # millions of records live for a moment, none of them in a cycle: looking for some takes a third of the time
    try:
        with deployment(definition.name, properties, store) as subject:
            findings = Verification(
                definition,
                subject,
                casting_of=casting_of,
                headers=HeaderPolicy(settings.worker.headers),
                limits=Limits(max_record_bytes=dead_letter_bytes(definition, settings, log.logger("verify").warning)),
                told=meter.show,
            ).run(wishes)
            witnesses(
                findings, subject, definition, wishes, seen=seen or [], journal=journal, aborted=lambda: aborted(definition, properties)
            )
    finally:
        meter.done()
        store.close()
    typer.echo(as_json(findings, meter) if output is Output.JSON else as_text(definition.name, findings, meter))
    if not findings.sound():
        raise typer.Exit(1)


def witnesses(
    findings: Findings,
    subject: Subject,
    app: App,
    wishes: Wishes,
    *,
    seen: Sequence[Path],
    journal: Path | None,
    aborted: Callable[[], int],
) -> None:
    """What a reader saw meanwhile, and what the journal of a run tells; without them that is not checked."""
    from headrace.verify.journal import check_journal
    from headrace.verify.seen import check_seen

    with ExitStack() as files:
        if seen:
            lines = chain.from_iterable(files.enter_context(_opened(path, "--seen")) for path in seen)
            check_seen(app, subject, lines, findings, live=wishes.live, from_ms=wishes.from_ms, to_ms=wishes.to_ms)
        else:
            findings.not_checked["I1+"] = "no reader's file was given (--seen)"
        if journal is not None:
            check_journal(files.enter_context(_opened(journal, "--journal")), findings, aborted)
        else:
            findings.not_checked |= dict.fromkeys(("I7", "I8", "I9"), "no journal was given (--journal)")


def _opened(path: Path, option: str) -> TextIO:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint=option) from None


def aborted(app: App, properties: Properties) -> int:
    """How many results were written and aborted."""
    from headrace.consume.kafka_reader import Isolation, KafkaReader

    counts = []
    for isolation in (Isolation.COMMITTED, Isolation.UNCOMMITTED):
        reader = KafkaReader(properties, isolation=isolation)
        try:
            topics = [app.dead_letters, *app.result_topics]
            starts = {name: reader.log_range(name).start for topic in topics for name in reader.partitions(topic)}
            counts.append(sum(map(len, reader.batches(starts))))
        finally:
            reader.close()
    return counts[1] - counts[0]


class Meter:
    """Shows how far it is, once a second, on standard error."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.seconds = 0.0
        self._told_s = self.began_s
        self._line = sys.stderr.isatty()
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Another batch is through."""
        now_s = time.monotonic()
        self.seconds = now_s - self.began_s
        if now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s, self._shown = now_s, True
        share = progress.events / progress.of if progress.of else 1.0
        rate = progress.events / self.seconds
        rest = f"{(progress.of - progress.events) / rate:,.0f} s left" if rate else "starting"
        apart = f"{progress.waiting:,} waiting, {progress.violations:,} violations"
        text = f"{share:6.1%}  {progress.events:,} events, {rate:,.0f}/s, {rest}, {apart}"
        typer.echo(f"\r{text:<100}" if self._line else text, err=True, nl=not self._line)

    def done(self) -> None:
        """The end of the line."""
        if self._line and self._shown:
            typer.echo("", err=True)


def _ms(text: str | None, option: str) -> int | None:
    """Milliseconds of a time in ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write for example 2026-01-31T12:00 or 2026-01-31T12:00:00+01:00", param_hint=option
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000)


def as_text(name: str, findings: Findings, meter: Meter, only: Collection[str] = ()) -> str:
    """For people: the verdict on each invariant (`only`: on these), then the first violations."""
    from headrace.verify.findings import INVARIANTS, WITNESSED

    counted = ", ".join(f"{count:,} {what}" for what, count in findings.checked.items())
    lines = [f"app {name}: {counted or 'nothing'} in {meter.seconds:.1f} s"]
    for invariant, (what, kinds) in {**INVARIANTS, **WITNESSED}.items():
        if only and invariant not in only:
            continue
        verdict = findings.verdict(invariant)
        wrong = ", ".join(f"{findings.counts[kind]:,} {kind.value}" for kind in kinds if findings.counts[kind])
        why = wrong if verdict == "violated" else findings.not_checked.get(invariant, "")
        lines.append(f"  {invariant:<3} {what:<13} {verdict}{': ' if why else ''}{why}")
    wrongs = [incident.text() for incident in findings.incidents] + [violation.text() for violation in findings.violations]
    lines += [f"  {wrong}" for wrong in wrongs[:SHOWN]]
    more = findings.counts.total() - min(SHOWN, len(wrongs))
    if more > 0:
        lines.append(f"  ... and {more:,} more; --output json lists the first {findings.keep:,}")
    return "\n".join(lines)


def as_json(findings: Findings, meter: Meter, only: Collection[str] = (), **more: object) -> str:
    """For programs."""
    from headrace.verify.findings import INVARIANTS, WITNESSED

    return json.dumps(
        {
            "sound": findings.sound(),
            "invariants": {invariant: findings.verdict(invariant) for invariant in only or (*INVARIANTS, *WITNESSED)},
            "not_checked": findings.not_checked,
            "checked": findings.checked,
            "counts": findings.counts,
            "violations": [asdict(violation) for violation in findings.violations],
            "incidents": [asdict(incident) for incident in findings.incidents],
            "seconds": round(meter.seconds, 3),
            **more,
        },
        indent=2,
    )
