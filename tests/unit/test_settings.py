from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from headrace.errors import SettingsError
from headrace.publish.encoder import HeaderPolicy
from headrace.settings import Settings, WorkerSettings, declared, load
from headrace.types import Delivery


@pytest.fixture(autouse=True)
def empty_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings and a working directory without a file."""
    for name in list(os.environ):
        if name.upper().startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "headrace.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold() -> None:
    """No file and no variable is a full set of settings, all from their defaults."""
    loaded = load()
    assert loaded.settings == Settings()
    assert loaded.settings.kafka.delivery is Delivery.EXACTLY_ONCE
    assert {row.source for row in loaded.shown()} == {"default"}


def test_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value comes from the strongest place that names it, and the listing says which."""
    written('[worker]\nmax_batch = 10\nslot = "7"\n')
    monkeypatch.setenv("HEADRACE_WORKER__MAX_BATCH", "20")
    loaded = load()
    assert (loaded.settings.worker.max_batch, loaded.settings.worker.slot, loaded.settings.worker.max_store_delay_ms) == (20, "7", 1_000)
    sources = {row.name: row.source for row in loaded.shown()}
    assert sources["worker.max_batch"] == "environment HEADRACE_WORKER__MAX_BATCH"
    assert sources["worker.slot"] == "file headrace.toml"
    assert sources["worker.max_store_delay_ms"] == "default"


def test_the_file_is_named_by_argument_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """--config wins over HEADRACE_CONFIG, which wins over headrace.toml in the working directory."""
    for name, size in (("headrace.toml", 1), ("two.toml", 2), ("three.toml", 3)):
        written(f"[worker]\nmax_batch = {size}\n", name)
    assert load().settings.worker.max_batch == 1
    monkeypatch.setenv("HEADRACE_CONFIG", "two.toml")
    assert load().settings.worker.max_batch == 2
    assert load(Path("three.toml")).settings.worker.max_batch == 3


def test_tables_of_properties_are_laid_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password may come from the environment while the rest of the properties stands in the file."""
    written('[kafka.properties]\n"security.protocol" = "SASL_SSL"\n"sasl.password" = "from-file"\n')
    monkeypatch.setenv("HEADRACE_KAFKA__PROPERTIES", '{"sasl.password": "from-environment", "linger.ms": 5}')
    loaded = load()
    assert loaded.settings.kafka.properties == {"security.protocol": "SASL_SSL", "sasl.password": "from-environment", "linger.ms": 5}
    shown = {row.name: (row.value, row.source) for row in loaded.shown()}
    assert shown["kafka.properties.security.protocol"] == ("SASL_SSL", "file headrace.toml")
    assert shown["kafka.properties.sasl.password"] == ("***", "environment HEADRACE_KAFKA__PROPERTIES")


def test_secrets_are_hidden_everywhere_and_listed_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing or representation of the settings holds a secret, and `secrets` names all of them."""
    monkeypatch.setenv("HEADRACE_REDIS__URL", "rediss://user:canary%2D1@host:6379/0?ssl_password=canary+5&db=0")
    monkeypatch.setenv("HEADRACE_REDIS__PASSWORD", "canary-2")
    monkeypatch.setenv("HEADRACE_KAFKA__CONSUMER_PROPERTIES", '{"ssl.key.password": "canary-3", "ssl.key.pem": "canary-4"}')
    monkeypatch.setenv("HEADRACE_KAFKA__PROPERTIES", '{"sasl.oauthbearer.assertion.private.key.passphrase": "canary-6"}')
    loaded = load()
    everything = f"{loaded.shown()} {loaded.settings!r} {loaded!r}"
    assert "canary" not in everything
    assert {row.name: row.value for row in loaded.shown()}["redis.url"] == "rediss://user:***@host:6379/0?ssl_password=***&db=0"
    assert set(loaded.settings.secrets()) == {f"canary{end}" for end in ("%2D1", "-1", "-2", "-3", "-4", "+5", " 5", "-6")}


def test_misspelt_variable_is_refused_with_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that nobody declared stops the start and names the one that was probably meant."""
    monkeypatch.setenv("HEADRACE_WORKER__MAX_BACH", "20")
    with pytest.raises(
        SettingsError, match=r"HEADRACE_WORKER__MAX_BACH, which is no setting \(did you mean HEADRACE_WORKER__MAX_BATCH\?\)"
    ):
        load()


def test_misspelt_names_in_the_file_are_refused_with_a_guess() -> None:
    """A section or setting that nobody declared stops the start, all of them in one text."""
    written("[worker]\nmax_bach = 1\n[kafak]\nx = 1\n")
    with pytest.raises(SettingsError) as refused:
        load()
    assert "worker.max_bach (file headrace.toml) is no setting (did you mean worker.max_batch?)" in str(refused.value)
    assert "kafak (file headrace.toml) is no setting (did you mean kafka?)" in str(refused.value)
    assert "headrace config show" in str(refused.value)


def test_variables_that_kubernetes_makes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service called headrace or headrace-worker puts variables into every pod; they stop nobody."""
    for name in (
        "SERVICE_HOST",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_9464_TCP",
        "PORT_9464_TCP_ADDR",
        "WORKER_SERVICE_HOST",
        "WORKER_PORT_9464_TCP_PROTO",
    ):
        monkeypatch.setenv(f"HEADRACE_{name}", "tcp://10.0.0.1:9464")
    assert load().settings == Settings()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HEADRACE_WORKER__MAX_BATCH", "many", "worker.max_batch (environment HEADRACE_WORKER__MAX_BATCH) is refused"),
        ("HEADRACE_WORKER__MAX_BATCH", "0", "greater than or equal to 1"),
        ("HEADRACE_WORKER__SLOT", "a b", "write 1 to 64 letters"),
        ("HEADRACE_WORKER__STATIC_MEMBERSHIP", "perhaps", "worker.static_membership (environment"),
        ("HEADRACE_WORKER__REFUSED_SHARE", "0", "greater than 0"),
        ("HEADRACE_KAFKA__BOOTSTRAP_SERVERS", "broker", "write host:port"),
        ("HEADRACE_KAFKA__BOOTSTRAP_SERVERS", "broker:99999", "write host:port"),
        ("HEADRACE_KAFKA__DELIVERY", "twice", "'exactly_once' or 'at_least_once'"),
        ("HEADRACE_KAFKA__PROPERTIES", "linger.ms=5", "no JSON table"),
        ("HEADRACE_REDIS__URL", "http://host", "write redis://host:6379/0"),
        ("HEADRACE_REDIS__URL", "redis://host:port", "write redis://host:6379/0"),
        ("HEADRACE_REDIS__TLS_CA", "ca.pem", "let it begin with rediss://"),
        ("HEADRACE_LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_wrong_values_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """A wrong value is refused with its setting's name and what would be right."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert says in str(refused.value)


def test_a_refusal_never_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a refusal holds no value that may be secret."""
    monkeypatch.setenv("HEADRACE_REDIS__URL", "redis://user:canary@host:port")
    monkeypatch.setenv("HEADRACE_KAFKA__PROPERTIES", '{"sasl.password": ["canary"]}')
    with pytest.raises(SettingsError) as refused:
        load()
    assert "canary" not in str(refused.value)
    assert "canary" not in repr(refused.value.__cause__)


def test_a_file_that_is_no_toml_or_not_there_is_named() -> None:
    """What is wrong with the file itself is said with its name."""
    written("worker = [")
    with pytest.raises(SettingsError, match=r"headrace\.toml is no TOML"):
        load()
    with pytest.raises(SettingsError, match=r"no settings file absent\.toml"):
        load(Path("absent.toml"))


def test_static_membership_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group knows a worker by its slot unless that is set to false."""
    assert load().settings.worker.static_membership is True
    monkeypatch.setenv("HEADRACE_WORKER__STATIC_MEMBERSHIP", "false")
    assert load().settings.worker.static_membership is False


def test_every_setting_says_what_it_is_for() -> None:
    """Every declared setting has a description that ends as a sentence."""
    assert all(doc.endswith(".") for doc in declared().values()), declared()


def test_header_policies_are_those_of_the_encoder() -> None:
    """The setting offers exactly what the encoder can do."""
    assert set(get_args(WorkerSettings.model_fields["headers"].annotation)) == {policy.value for policy in HeaderPolicy}
