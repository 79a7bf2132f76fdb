"""How far a command is, once a second, on standard error: one line that moves on a terminal, else a line each time."""

from __future__ import annotations

import sys
import time

import typer

TOLD_EVERY_S = 1.0


class RecordMeter:
    """Counts records."""

    def __init__(self) -> None:
        self._began_s = self._told_s = time.monotonic()
        self._line = sys.stderr.isatty()
        self._shown = False

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began_s

    def show(self, records: int, of: int) -> None:
        """So many are taken, of so many."""
        now_s = time.monotonic()
        if now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s, self._shown = now_s, True
        rate = records / (now_s - self._began_s)
        text = f"{records / max(of, 1):6.1%}  {records:,} of {of:,} records, {rate:,.0f}/s, {(of - records) / max(rate, 1e-9):,.0f} s left"
        typer.echo(f"\r{text:<100}" if self._line else text, err=True, nl=not self._line)

    def done(self) -> None:
        """The end of the line."""
        if self._line and self._shown:
            typer.echo("", err=True)
