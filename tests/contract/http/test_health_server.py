"""The probes and the scrape over real HTTP on this machine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from headrace.apps.health import Health, HealthServer
from headrace.clock import ManualClock
from headrace.errors import SettingsError
from headrace.metrics import Metrics


@pytest.fixture
def clock() -> ManualClock:
    """The time of the loop."""
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    """What the loop leaves behind."""
    return Health(clock.monotonic_ns)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    """A server on a free port."""
    server = HealthServer(health, Metrics().exposition, port=0)
    yield server
    server.close()


def get(server: HealthServer, path: str, accept: str = "") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Type"], answer.read()
    connection.close()
    return found


def test_probes_answer_by_status_and_say_why(server: HealthServer, health: Health, clock: ManualClock) -> None:
    """/livez and /readyz answer 200 or 503, with the reasons as JSON."""
    assert get(server, "/livez")[0] == 200
    status, content_type, body = get(server, "/readyz")
    assert (status, content_type, json.loads(body)["reasons"]) == (503, "application/json", ["the worker is starting"])
    health.report(waits_for=[])
    assert get(server, "/readyz?verbose")[0] == 200
    clock.advance(60_000)
    assert get(server, "/livez")[0] == 503


def test_metrics_are_served_in_the_format_asked_for(server: HealthServer) -> None:
    """/metrics speaks text, or OpenMetrics to whoever accepts it."""
    status, content_type, body = get(server, "/metrics")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    assert b"headrace_ready 0.0" in body
    _, content_type, body = get(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_other_paths_are_not_found(server: HealthServer) -> None:
    """What is not served says what is."""
    status, _, body = get(server, "/")
    assert status == 404
    assert b"/readyz" in body


def test_it_listens_on_this_machine_only(server: HealthServer) -> None:
    """Without a setting nobody outside can connect."""
    assert server.address[0] == "127.0.0.1"


def test_a_taken_port_is_a_setting_to_change(server: HealthServer, health: Health) -> None:
    """Two workers on one port: the second says which setting to change."""
    with pytest.raises(SettingsError, match=r"worker\.http_port"):
        HealthServer(health, Metrics().exposition, port=server.address[1])
