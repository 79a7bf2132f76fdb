"""What needs Docker cannot run here: it is parsed and compared with what `headrace stack up` starts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.local_programs import kafka_version, recipe
from headrace.local_stack import KAFKA_PORT, REDIS_PORT, KafkaServer, Layout, RedisServer
from headrace.metrics import Metrics
from headrace.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

WHERE_IT_LIVES = {
    *(
        "node.id",
        "listeners",
        "advertised.listeners",
        "listener.security.protocol.map",
        "controller.quorum.voters",
        "log.dirs",
        "heap.opts",
    ),
}
"""Settings that say where a broker lives; they must differ."""

ONE_BROKER = Layout(cluster_id="x", kafka_ports=[1], controller_ports=[2], redis_port=3, redis_program=None, heap_mb=1024)


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return dict(parsed["services"])


def test_the_broker_has_the_settings_of_the_local_one(services: dict[str, Any], tmp_path: Path) -> None:
    """Every setting of the local broker stands in the compose file with the same value, and no other does."""
    local = dict(
        line.split("=", 1)
        for line in (recipe() / "server.properties").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    local |= KafkaServer(node=1, folder=tmp_path, layout=ONE_BROKER).properties()
    variables = services["kafka"]["environment"]
    composed = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in variables.items()}
    assert all(isinstance(value, str) for value in composed.values()), "Docker wants texts"
    assert {name: composed[name] for name in set(composed) - WHERE_IT_LIVES} == {name: local[name] for name in set(local) - WHERE_IT_LIVES}
    assert f"-Xmx{ONE_BROKER.heap_mb}m" in composed["heap.opts"]


def test_the_broker_is_the_version_of_the_local_one(services: dict[str, Any]) -> None:
    """Both stacks run the same Apache Kafka."""
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def test_redis_has_the_settings_of_the_local_one(services: dict[str, Any], tmp_path: Path) -> None:
    """Persistence and eviction are the same in both stacks."""
    redis = RedisServer(folder=tmp_path, layout=ONE_BROKER)
    redis.write_settings()
    local = dict(line.split(" ", 1) for line in (redis.folder / "redis.conf").read_text(encoding="utf-8").splitlines())
    words = services["redis"]["command"][1:]
    composed = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    assert composed == {name: local[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")}


def test_everything_is_published_on_this_machine_only_and_where_headrace_looks(services: dict[str, Any]) -> None:
    """Ports are bound to 127.0.0.1; broker, store and metrics have the ports of the defaults."""
    ports = {name: service["ports"][0] for name, service in services.items() if "ports" in service}
    assert all(port.startswith("127.0.0.1:") for port in ports.values())
    defaults = Settings()
    assert defaults.kafka.bootstrap_servers == f"127.0.0.1:{KAFKA_PORT}" == ports["kafka"].rpartition(":")[0]
    assert defaults.redis.url == f"redis://127.0.0.1:{REDIS_PORT}/0"
    assert ports["redis"].rpartition(":")[0] == f"127.0.0.1:{REDIS_PORT}"
    assert ports["worker"] == f"127.0.0.1:{defaults.worker.http_port}:{defaults.worker.http_port}"


def test_every_setting_given_to_a_container_exists(services: dict[str, Any]) -> None:
    """The variables of the worker are settings of headrace."""
    declared = {f"HEADRACE_{section}__{name}".upper() for section, table in Settings() for name in type(table).model_fields}
    for name in ("apply", "worker"):
        assert set(services[name]["environment"]) <= declared


def test_every_file_that_is_mounted_or_copied_exists(services: dict[str, Any]) -> None:
    """Mounts of the compose file and copies of the Dockerfile name what is there, and the build is allowed to see it."""
    mounted = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", []) if mount.startswith("./")]
    copied = re.findall(r"^COPY (\S+) ", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [source for source in copied if not source.startswith("--")]
    assert mounted
    assert copied
    assert [name for name in [*mounted, *copied] if not (ROOT / name).exists()] == []
    seen = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} <= set(seen)


def test_prometheus_asks_the_worker(services: dict[str, Any]) -> None:
    """Prometheus scrapes the port on which the worker serves its metrics."""
    settings = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [target for job in settings["scrape_configs"] for group in job["static_configs"] for target in group["targets"]]
    assert targets == [f"worker:{Settings().worker.http_port}"]
    assert "worker" in services


def test_the_dashboard_shows_metrics_that_exist() -> None:
    """Each metric that a panel asks for is one that a worker exposes, and the data source is the provisioned one."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "overview.json").read_text(encoding="utf-8"))
    source = yaml.safe_load((ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    _, exposed = Metrics(topics=["t"], models=["m"]).exposition()
    known = set(re.findall(r"^# TYPE (\S+)", exposed.decode(), re.MULTILINE))
    families = known | {f"{name}{suffix}" for name in known for suffix in ("_bucket", "_sum", "_count", "_total")}
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        asked = {name for query in panel["targets"] for name in re.findall(r"\bheadrace_\w+", query["expr"])}
        assert asked
        assert asked <= families, panel["title"]
