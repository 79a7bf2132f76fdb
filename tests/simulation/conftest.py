"""What holds for every simulation."""

from __future__ import annotations

import faulthandler

import pytest


@pytest.fixture(autouse=True)
def _no_traces_of_greenlets() -> None:
    """No stacks are shown of a test that takes long: walking those of workers that are being switched ends the process (SIGSEGV)."""
    faulthandler.cancel_dump_traceback_later()
