"""`headrace features get` as a person meets it: a process, a real Redis, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.features.redis_store import RedisStore
from headrace.local_stack import RedisServer, Stack
from tests.contract.store.test_lookups import AS_OF_MS, KNOWN, PARTITIONS, copy
from tests.unit.paying import APP, NOON_MS, SECOND_MS, Cards

ROOT = Path(__file__).resolve().parents[2]
UNTIL_MS = str(AS_OF_MS)


@pytest.fixture
def filled(own_stack: Callable[..., Stack]) -> RedisServer:
    """A Redis that holds sixty cards."""
    server = own_stack(brokers=0).redis
    cards = Cards(partitions=PARTITIONS)
    for place, name in enumerate(KNOWN):
        cards.pay(name, NOON_MS + place * SECOND_MS, 0.7 * place)
    store = RedisStore(app=APP.name, url=server.url)
    copy(cards, store)
    store.close()
    return server


def headrace(server: RedisServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "services"), "HEADRACE_REDIS__URL": server.url}
    command = [sys.executable, "-m", "headrace", "features", *arguments, "--app", "tests.unit.paying:APP"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def test_get(filled: RedisServer) -> None:
    """Values come as text and as JSON; an unknown entity is answered and marked; refusals are one line and exit code 1."""
    found = headrace(filled, "get", "spending", KNOWN[9], "--as-of", UNTIL_MS)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"spending (version 1), entity {KNOWN[9]}, as of 2023-11-14T22:14:50.000Z\nfrom payments.v1-")
    assert "  sum_amount_where_real_1h          6.3\n" in found.stdout
    told = json.loads(headrace(filled, "get", "spending", KNOWN[9], "--as-of", UNTIL_MS, "--output", "json").stdout)
    assert (told["known"], told["values"]["sum_amount_where_real_1h"], told["fingerprint"]) == (
        True,
        0.7 * 9,
        APP.pipelines[0].views[0].fingerprint,
    )
    unknown = json.loads(headrace(filled, "get", "spending", "nobody", "--output", "json").stdout)
    assert (unknown["known"], unknown["values"]["count_where_real_1h"]) == (False, 0.0)
    refused = headrace(filled, "get", "spendings", "a")
    assert (refused.returncode, refused.stderr) == (1, "headrace: app 'cards' has no view 'spendings'; near it are spending\n")
    filled.kill()
    away = headrace(filled, "get", "spending", "a")
    assert away.returncode == 1
    assert away.stderr.startswith(f"headrace: Redis at 127.0.0.1:{filled.port} cannot be reached")
