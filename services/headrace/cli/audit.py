"""`headrace audit`: what was served, beside a naive recomputation.

Exit codes: 0 what was compared is as it should be, 1 something differs, or nothing could be compared (or an error).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.apps.health import Health
    from headrace.audit.auditing import Audit
    from headrace.audit.auditing import Progress as SoFar
    from headrace.audit.findings import Findings
    from headrace.audit.reporting import Figures

STALLED_AFTER_MS = 600_000
"""Naming a mistake takes its time."""

app = typer.Typer(
    help="Compare the features that were served with a naive recomputation, for a sample of entities.",
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def audit(
    app_reference: Annotated[str, typer.Option("--app", help="The app, as module:attribute.")],
    share: Annotated[
        float, typer.Option(min=1e-9, max=1.0, help="The share of entities that is looked at, by a hash of their keys.")
    ] = 0.01,
    from_time: Annotated[str | None, typer.Option("--from", help="Compare records from this time on (ISO 8601, UTC).")] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="Compare records before this time.")] = None,
    continuous: Annotated[bool, typer.Option("--continuous", help="Go on with what comes, until SIGTERM; serve /metrics.")] = False,
    every_seconds: Annotated[float, typer.Option("--every", min=0.1, help="How long to wait before looking for more.")] = 10.0,
    http_port: Annotated[int, typer.Option(min=0, max=65_535, help="The port of /metrics with --continuous; 0 takes a free one.")] = 9465,
    metrics_file: Annotated[Path | None, typer.Option(help="Write the metrics there, for the node exporter's textfile collector.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else headrace.toml, if it is there.")] = None,
    output: Annotated[Output, typer.Option(help="Text for people, or a JSON object a line for programs.")] = Output.TEXT,
) -> None:
    """Tell the features of some entities again, event by event, by naive means, and compare them with the vectors in the predictions.

    The compiled fold takes no part in it. What differs is named by the known mistake that gives what was served, where there is one.
    """
    from headrace import log
    from headrace.apps.worker import kafka_properties
    from headrace.audit.auditing import Audit
    from headrace.audit.reporting import Figures, as_json, as_text
    from headrace.cli.definitions import load_app
    from headrace.cli.verify import Meter, _ms
    from headrace.kafka_client import knock
    from headrace.settings import load
    from headrace.verify.deployment import deployment
    from headrace.verify.verification import Progress

    settings = load(config).settings
    log.set_up(
        level=settings.log.level if continuous else "error",
        style=settings.log.format if continuous else "console",
        secrets=settings.secrets(),
    )
    definition = load_app(app_reference)
    times_ms = (_ms(from_time, "--from"), _ms(to_time, "--to"))
    if continuous and to_time is not None:
        raise typer.BadParameter("what goes on has no end", param_hint="--to")
    properties = kafka_properties(settings)
    knock(properties)
    meter = Meter()
    with deployment(definition.name, properties, None) as subject:
        service: Service | None = None

        def told(so_far: SoFar) -> None:
            if service is None:
                meter.show(Progress(events=so_far.events, of=so_far.of, waiting=so_far.waiting, violations=so_far.wrong))
            else:
                service.tick()

        auditing = Audit(definition, subject, share=share, told=told)
        figures = Figures(auditing.findings)
        written = Written(figures, metrics_file)

        def show(findings: Findings) -> None:
            written.take(findings)
            seconds = time.monotonic() - meter.began_s
            typer.echo(as_json(findings, seconds) if output is Output.JSON else as_text(definition.name, findings, seconds))

        if continuous:
            service = Service(figures, host=settings.worker.http_host, port=http_port, say=log.logger("audit", app=definition.name).info)
            service.run(auditing, times_ms[0], every_seconds, show, written.take)
        else:
            try:
                auditing.more(*times_ms)
            finally:
                meter.done()
            show(auditing.findings)
    if not (auditing.findings.clean() and (continuous or auditing.findings.compared())):
        raise typer.Exit(1)


class Written:
    """The metrics, in a file too if one is wanted."""

    def __init__(self, figures: Figures, path: Path | None) -> None:
        self._figures, self._path = figures, path

    def take(self, findings: Findings) -> None:
        """What was found up to now; a file is whole at every moment."""
        self._figures.take(findings, time.time_ns() // 1_000_000)
        if self._path is not None:
            partial = self._path.with_name(f"{self._path.name}.partial")
            partial.write_bytes(self._figures.metrics.exposition()[1])
            partial.replace(self._path)


class Service:
    """An audit that goes on until SIGTERM, and serves its metrics and probes."""

    def __init__(self, figures: Figures, *, host: str, port: int, say: Callable[..., object]) -> None:
        from headrace.apps.health import Health, HealthServer

        self._say = say
        self._health: Health = Health(time.monotonic_ns, stalled_after_ms=STALLED_AFTER_MS)
        self._health.report(waits_for=("the first audit is not complete",))
        self._server = HealthServer(self._health, figures.metrics.exposition, host=host, port=port)
        self._ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())

    def tick(self) -> None:
        """It is still at work. Raises `KeyboardInterrupt` when it was told to end."""
        self._health.tick()
        if self._ended.is_set():
            raise KeyboardInterrupt

    def run(
        self,
        auditing: Audit,
        from_ms: int | None,
        every_s: float,
        show: Callable[[Findings], None],
        take: Callable[[Findings], None],
    ) -> None:
        """Audit what is there, then what comes; shows when something new was compared, and tells when something is wrong."""
        from headrace.errors import TransientError

        host, port = self._server.address
        self._say("audit starts", metrics=f"http://{host}:{port}/metrics")
        compared = -1
        try:
            while not self._ended.is_set():
                try:
                    findings = auditing.more(from_ms)
                except TransientError as error:
                    self._say("waiting for Kafka", reason=str(error))
                else:
                    self._health.report(waits_for=())
                    if findings.compared() > compared:
                        compared = findings.compared()
                        show(findings)
                    else:
                        take(findings)
                self._health.tick()
                self._ended.wait(every_s)
        except KeyboardInterrupt:
            self._say("audit ends in the middle of its work")
        finally:
            self._server.close()
