"""T52: decode and contract check, fuzzed with coverage as the guide, beside the standard library and pydantic."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.types import Headers, Reason
from tests.conftest import missing
from tests.fuzz.oracle import REASONS, batch_of, expected
from tests.fuzz.records import MOST, Fuzzed, put_together, taken_apart
from tests.unit.decode.contracts import NOW_MS, event, raw
from tests.unit.decode.test_cloudevents import STRUCTURED, binary, structured
from tests.unit.decode.test_mutations import ORIGINALS, mutant

ROOT = Path(__file__).resolve().parents[2]
MOST_MB = 300
LONGEST_INPUT = 6_000
INPUTS_A_PROCESS = 30_000
"""The fuzzer itself grows by some 2 kB with every input (decoding the same inputs without it does not), so that it is started anew."""
START_S = 60
"""What a child may take to come up and to write what it found."""

SEEDS: Sequence[Sequence[Fuzzed]] = [
    *([Fuzzed(value=value)] for value in ORIGINALS),
    [Fuzzed(value=None)],
    [Fuzzed(value=event(padding="x" * 4_000))],
    [Fuzzed(value=raw("unknown", b"[" * 200 + b"]" * 200))],
    [Fuzzed(value=raw("seats", b'1, "seats": "2"'))],
    [Fuzzed(value=raw("dep_delay", b"1e400"))],
    [Fuzzed(value=raw("seats", b"9223372036854775808"))],
    [Fuzzed(value=raw("carrier", b'"\\ud800"'))],
    [Fuzzed(value=event(departed_at=NOW_MS + 86_400_000))],
    [Fuzzed(value=event(departed_at=1))],
    [Fuzzed(value=event(), key=b"JFK")],
    [Fuzzed(value=event(), key=None)],
    [Fuzzed(value=event(), headers=binary())],
    [Fuzzed(value=event(), headers=binary(ce_id=b""))],
    [Fuzzed(value=event(), headers=binary(content_type=b"text/plain"))],
    [Fuzzed(value=structured(), headers=STRUCTURED)],
    [Fuzzed(value=structured(data_base64="e30="), headers=STRUCTURED)],
    [Fuzzed(value=structured(datacontenttype="text/xml"), headers=STRUCTURED)],
    [Fuzzed(value=structured(specversion="0.3"), headers=STRUCTURED)],
    [Fuzzed(value=event(), headers=[("traceparent", b"00-1-2-01"), ("x", None)])],
    [Fuzzed(value=event()), Fuzzed(value=b"{"), Fuzzed(value=structured(), headers=STRUCTURED), Fuzzed(value=None, key=None)],
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzing:
    """What a fuzzer said in the end."""

    crash: bytes | None
    """The input that broke something."""
    text: str
    inputs: int
    peak_mb: int


def fuzz(folder: Path, *, seconds: int, seed: int, bug: str = "decodes") -> Fuzzing:
    """Fuzz for so long, in child processes one after another that leave the processor to others, each with what the one before found."""
    if importlib.util.find_spec("atheris") is None:
        missing("atheris is not here: it has wheels for Linux on x86-64 only")
    corpus, found = folder / "corpus", folder / "found"
    corpus.mkdir()
    found.mkdir()
    for number, records in enumerate(SEEDS):
        (corpus / f"seed-{number}").write_bytes(put_together(list(records)))
    until, inputs, peak_mb, text = time.monotonic() + seconds, 0, 0, ""
    while (left := int(until - time.monotonic())) > 0 and not list(found.iterdir()):
        text = _child(corpus, found, bug=bug, seconds=left, seed=seed + inputs)
        told = {name: int(number) for name, number in re.findall(r"^stat::(\w+): +(\d+)$", text, re.MULTILINE)}
        inputs += told.get("number_of_executed_units", 1)
        peak_mb = max(peak_mb, told.get("peak_rss_mb", 0))
    crash = next((path.read_bytes() for path in sorted(found.iterdir())), None)
    return Fuzzing(crash=crash, text=text, inputs=inputs, peak_mb=peak_mb)


def _child(corpus: Path, found: Path, *, bug: str, seconds: int, seed: int) -> str:
    """What one process said; it has failed if it left no input that shows why."""
    options = [
        f"-runs={INPUTS_A_PROCESS}",
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-seed={seed % (1 << 31) or 1}",
        f"-rss_limit_mb={MOST_MB}",
        "-timeout=20",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
    ]
    child = subprocess.run(
        # A process begins with the peak memory of the one that starts it, which may be ours: so a small one stands in between.
        ["sh", "-c", '"$@"; exit $?', "sh", "nice", "-n", "15", sys.executable, "-m", "tests.fuzz.decode_target", bug, corpus, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT)))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + START_S,
        check=False,
    )
    text = child.stdout.decode(errors="replace")
    assert list(found.iterdir()) or child.returncode == 0, f"exit code {child.returncode}\n{text[-4_000:]}"
    return text


@pytest.mark.faults
@pytest.mark.timeout(3_600)
def test_no_input_breaks_decoding(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> None:
    """T52: whatever the bytes, each record is an event or a dead letter for the reason of the contract, in less than 300 MB."""
    done = fuzz(tmp_path, seconds=request.config.option.fuzz_seconds, seed=seed)
    request.node.user_properties.append(("figures", {"inputs": done.inputs, "peak_mb": done.peak_mb, "violations": int(bool(done.crash))}))
    assert done.crash is None, f"kept in {tmp_path / 'found'}: {done.crash!r}, {taken_apart(done.crash)}\n{done.text[-4_000:]}"
    assert done.inputs > len(SEEDS)
    assert 0 < done.peak_mb < MOST_MB


@pytest.mark.parametrize(
    ("bug", "says"),
    [
        ("raises", "a byte that nobody thought of"),
        ("loses", "not one outcome for each"),
        ("repeats", "not one outcome for each"),
        ("mistakes", "by the contract"),
    ],
)
def test_a_planted_mistake_is_found(tmp_path: Path, seed: int, bug: str, says: str) -> None:
    """A decoder that breaks, loses, repeats or mistakes is found out, and the input that shows it is kept."""
    done = fuzz(tmp_path, seconds=60, seed=seed, bug=bug)
    assert done.crash is not None, done.text[-2_000:]
    assert says in done.text


def test_every_input_stands_for_records(seed: int) -> None:
    """Seeds come back as they were put together, and any bytes are at least one record that can be a batch."""
    for records in SEEDS:
        assert taken_apart(put_together(list(records))) == list(records)
    draw = random.Random(seed)
    for _ in range(300):
        found = taken_apart(draw.choice([draw.randbytes(40), mutant(draw), bytes(draw.choices(b"\x00\x1e\x1f{a", k=12))]))
        assert 1 <= len(found) <= MOST
        assert len(batch_of(found)) == len(found)


def test_seeds_show_every_reason() -> None:
    """The fuzzer begins with an example of each outcome: good events in all three modes, and each reason on the list."""
    outcomes: dict[Reason | None, list[Headers | None]] = {}
    for records in SEEDS:
        for record in records:
            outcomes.setdefault(expected(record), []).append(record.headers)
    assert outcomes.keys() == {None, *REASONS}
    assert {None if headers is None else len(headers) for headers in outcomes[None]} >= {None, 1, len(binary())}
