"""Every setting, declared once: type, default, check, what it is for. The only reader of the environment.

A value comes from the environment, else from the settings file, else from its default:

    HEADRACE_REDIS__URL=rediss://redis:6379/0        section and name in capitals, two underscores between them
    headrace.toml:  [redis]
                    url = "rediss://redis:6379/0"

The file is `headrace.toml` in the working directory, or the one that `--config` or HEADRACE_CONFIG names. Both places may hold a part
of a table such as kafka.properties; they are laid over each other. `headrace config show` prints what came of it and where from.
A setting that nobody declared is refused: one that is misspelt would else be silently absent.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as Unreadable

from headrace.errors import SettingsError
from headrace.types import Delivery

HIDDEN = "***"
FILE = "headrace.toml"
PREFIX = "HEADRACE_"
FILE_VARIABLE = "HEADRACE_CONFIG"

Property = str | int | float | bool

_SECRET_NAME = re.compile(r"passw|passphrase|secret|token|\.pem$|credential|jaas|sasl\.oauthbearer\.config", re.IGNORECASE)
_NAMES_OF_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)")
"""What Kubernetes puts into the environment of every pod beside a service that is called `headrace...`."""


def _addresses(text: str) -> str:
    for address in text.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - the last TCP port is 65535
            raise ValueError("write host:port, several with commas between them")
    return ",".join(address.strip() for address in text.split(","))


def _redis_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"redis", "rediss", "unix"} and bool(parts.hostname or parts.path)
        _ = parts.port
    except ValueError:
        known = False
    if not known:
        raise ValueError("write redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path/to/socket")
    return url


def _artifacts(place: str) -> str:
    if "://" not in place:
        return place
    parts = urlsplit(place)
    if not parts.scheme or not (parts.netloc or parts.path.strip("/")):
        raise ValueError("write redis, the path of a folder, or a URL such as s3://bucket/models")
    if parts.username or parts.password or parts.query:
        raise ValueError("leave credentials out: the store's library finds them in its environment, its profile or the machine's role")
    return place


def _slot(slot: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", slot):
        raise ValueError("write 1 to 64 letters, digits, - or _; in Kubernetes the ordinal of the pod")
    return slot


class _Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """The log."""

    bootstrap_servers: Annotated[str, AfterValidator(_addresses)] = Field(
        default="127.0.0.1:9092", description="Brokers to ask first: host:port, several with commas."
    )
    delivery: Delivery = Field(
        default=Delivery.EXACTLY_ONCE,
        description="exactly_once: one prediction per event and model; at_least_once: lower delay, after a crash some come twice.",
    )
    properties: dict[str, Property] = Field(
        default_factory=dict,
        repr=False,
        description="Any librdkafka property, for consumer, producer and admin client: security.protocol, sasl.*, ssl.*, sizes.",
    )
    consumer_properties: dict[str, Property] = Field(
        default_factory=dict, repr=False, description="Properties of the consumer only; they win over kafka.properties."
    )
    producer_properties: dict[str, Property] = Field(
        default_factory=dict, repr=False, description="Properties of the producer only; they win over kafka.properties."
    )


class RedisSettings(_Section):
    """The online store."""

    url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://127.0.0.1:6379/0", repr=False, description="redis://, rediss:// (TLS) or unix://; one node of a cluster is enough."
    )
    username: str | None = Field(default=None, description="ACL user; wins over the one in the URL.")
    password: SecretStr | None = Field(default=None, description="Its password; wins over the one in the URL.")
    tls_ca: Path | None = Field(
        default=None, description="PEM file of the authority that signed the server's certificate; else the system's."
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file of our own certificate, where the server asks for one.")
    tls_key: Path | None = Field(default=None, description="PEM file of its private key.")
    timeout_ms: int = Field(default=2_000, ge=100, le=60_000, description="How long a reply is waited for before the store counts as away.")

    @model_validator(mode="after")
    def _tls_needs_tls(self) -> RedisSettings:
        if any((self.tls_ca, self.tls_certificate, self.tls_key)) and not self.url.startswith("rediss://"):
            raise ValueError("tls_... is set, but redis.url is not encrypted: let it begin with rediss://")
        return self


class WorkerSettings(_Section):
    """The process that scores."""

    slot: Annotated[str, AfterValidator(_slot)] = Field(
        default="0",
        description="The stable number of this worker among those of its app; names its transactions and its place in the group.",
    )
    static_membership: bool = Field(
        default=True,
        description="The group knows a worker by its slot: started again, it has its partitions at once. false: it leaves when it ends.",
    )
    max_batch: int = Field(
        default=16_384, ge=1, le=1_000_000, description="Records one pass takes at most; also the size of a transaction."
    )
    overlap_from: int = Field(
        default=2_048,
        ge=1,
        le=1_000_000,
        description="A drain of that many records is a backlog: its commit stays in flight while the next is scored.",
    )
    max_store_delay_ms: int = Field(
        default=1_000, ge=0, le=60_000, description="How far the store may be behind the commit before the loop waits for it."
    )
    resident_entities: int = Field(default=200_000, ge=1_000, description="Entities whose state is kept in memory, per source.")
    max_value_bytes: int = Field(
        default=1_048_576, ge=1_024, le=104_857_600, description="Larger values are not parsed; they become dead letters."
    )
    refused_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of dead letters in a window above which the worker stops; 1 = never."
    )
    refused_window: int = Field(default=1_000, ge=10, description="That window, in records.")
    headers: Literal["full", "cloudevents", "minimal"] = Field(
        default="cloudevents",
        description="What the headers of a prediction hold: full adds the source's coordinates, which stand in the id; fewer are faster.",
    )
    http_host: str = Field(
        default="127.0.0.1", min_length=1, description="Where /metrics, /livez and /readyz are served; 0.0.0.0 in a container."
    )
    http_port: int = Field(default=9464, ge=0, le=65_535, description="Their port; 0 takes a free one and logs it.")


class ModelsSettings(_Section):
    """The files of model versions."""

    artifacts: Annotated[str, AfterValidator(_artifacts)] = Field(
        default="redis",
        min_length=1,
        description="Where they are kept: redis, beside the states; the path of a folder that all workers see; a URL that fsspec knows.",
    )


class LogSettings(_Section):
    """What the process says."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Events below this level are not written.")
    format: Literal["json", "console"] = Field(default="json", description="json: a line for machines; console: a line for people.")


class Settings(_Section):
    """All settings, read once by `load` and handed on as plain values."""

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    models: ModelsSettings = Field(default_factory=ModelsSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    def secrets(self) -> list[str]:
        """Every secret value there is, for `log.set_up` and whatever else must never print one."""
        tables = (self.kafka.properties, self.kafka.consumer_properties, self.kafka.producer_properties)
        found = [str(value) for table in tables for name, value in table.items() if _SECRET_NAME.search(name)]
        for in_url in _secrets_in_url(self.redis.url):
            found += [in_url, unquote(in_url), unquote_plus(in_url)]
        if self.redis.password is not None:
            found.append(self.redis.password.get_secret_value())
        return [secret for secret in dict.fromkeys(found) if secret]


class _Environment(Settings, BaseSettings):
    """The same as variables of the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One setting as `headrace config show` prints it; `source` says where the value was found."""

    name: str
    value: str
    source: str
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and where each came from: `sources` holds "environment HEADRACE_..." or "file <path>" by name, unless the default."""

    settings: Settings
    sources: Mapping[str, str]

    def shown(self) -> list[Shown]:
        """Every setting with its value, secrets hidden, in the order of declaration."""
        rows: list[Shown] = []
        for name, value, doc in _leaves(self.settings):
            named = {f"{name}.{key}": found for key, found in value.items()} if isinstance(value, dict) and value else {name: value}
            rows += [
                Shown(name=one, value=_text(one, found), source=self.sources.get(one, "default"), doc=doc) for one, found in named.items()
            ]
        return rows


def load(config: Path | None = None) -> Loaded:
    """Read the settings: environment over file over defaults.

    `config` is the file to read; without it HEADRACE_CONFIG names one, else `headrace.toml` is read if it is there.
    Raises `SettingsError`, which says what is wrong, where it was found and what to do.
    """
    path = _file(config)
    in_file = _read_file(path) if path is not None else {}
    in_environment = _read_environment()
    sources = dict.fromkeys(_names(in_file), f"file {path}")
    sources |= {name: f"environment {_variable(name)}" for name in _names(in_environment)}
    try:
        settings = Settings.model_validate(_over(in_file, in_environment))
    except ValidationError as error:
        raise SettingsError(_complaint(error, sources)) from None
    return Loaded(settings=settings, sources=sources)


def declared() -> dict[str, str]:
    """Every setting's dotted name and what it is for, in the order of declaration."""
    return {name: doc for name, _, doc in _leaves(Settings())}


def _file(config: Path | None) -> Path | None:
    named = config or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is None:
        return Path(FILE) if Path(FILE).is_file() else None
    if not named.is_file():
        raise SettingsError(
            f"there is no settings file {named}; name one with --config or {FILE_VARIABLE}, or leave both out to use the defaults"
        )
    return named


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}; mend it, then look with `headrace config show`") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


def _read_environment() -> dict[str, Any]:
    """What the environment sets, as nested tables; refuses names nobody declared."""
    known = {_variable(name) for name in declared()}
    tables = tuple(f"{_variable(name)}__" for name, value, _ in _leaves(Settings()) if isinstance(value, dict))
    for variable in os.environ:
        name = variable.upper()
        if not name.startswith(PREFIX) or name == FILE_VARIABLE or name in known or name.startswith(tables):
            continue
        if not _NAMES_OF_KUBERNETES.fullmatch(name.removeprefix(PREFIX)):
            raise SettingsError(
                f"the environment holds {variable}, which is no setting{_near(name, known)}; `headrace config show` lists all of them"
            )
    try:
        return EnvSettingsSource(_Environment)()
    except Unreadable as error:
        cause = re.search(r'field "(\w+)"', str(error))
        where = f"{PREFIX}{cause[1].upper()}__..." if cause else f"{PREFIX}..."
        raise SettingsError(
            f"the environment sets {where} to something that is no JSON table; write for example '{{\"linger.ms\": 5}}'"
        ) from None


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; what stands above wins, leaf by leaf."""
    merged = dict(below)
    for name, value in above.items():
        there = merged.get(name)
        merged[name] = _over(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return merged


def _names(tables: Mapping[str, Any], depth: int = 3) -> Iterator[str]:
    """The dotted names a nested table gives values to: `section.name`, and `section.name.property` below a table of properties."""
    for name, value in tables.items():
        if isinstance(value, dict) and depth > 1:
            yield from (f"{name}.{below}" for below in _names(value, depth - 1))
        else:
            yield name


def _variable(name: str) -> str:
    """The variable of a setting; a property is found in the variable of its table."""
    return PREFIX + "__".join(name.upper().split(".")[:2])


def _leaves(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    for section in type(settings).model_fields:
        table = getattr(settings, section)
        for name, field in type(table).model_fields.items():
            yield f"{section}.{name}", getattr(table, name), field.description or ""


def _text(name: str, value: object) -> str:
    """A value as it may be shown to anybody."""
    if value is None or value == {}:
        return ""
    if isinstance(value, SecretStr) or _SECRET_NAME.search(name):
        return HIDDEN
    return _without_secrets(str(value)) if name == "redis.url" else str(value)


def _secrets_in_url(url: str) -> list[str]:
    """The password before the host, and whatever the query names like one; as they are written there."""
    parts = urlsplit(url)
    named = [option.partition("=") for option in parts.query.split("&")]
    return [secret for secret in (parts.password, *(value for name, _, value in named if _SECRET_NAME.search(name))) if secret]


def _without_secrets(url: str) -> str:
    for secret in _secrets_in_url(url):
        url = url.replace(f":{secret}@", f":{HIDDEN}@", 1).replace(f"={secret}", f"={HIDDEN}")
    return url


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _complaint(error: ValidationError, sources: Mapping[str, str]) -> str:
    """Of every wrong setting its name, where it was found and what is wrong. Values are not repeated, they may be secret."""
    lines: list[str] = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        unknown = problem["type"] == "extra_forbidden"
        source = next((where for found, where in sources.items() if found == name or (unknown and found.startswith(f"{name}."))), None)
        where = f" ({source})" if source else ""
        if unknown:
            lines.append(f"{name}{where} is no setting{_near(name, declared() if len(path) > 1 else Settings.model_fields)}")
        else:
            lines.append(f"{name}{where} is refused: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(dict.fromkeys(lines)) + ". `headrace config show` lists every setting and where its value comes from"
