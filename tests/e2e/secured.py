"""Servers that let in only whom they know, and the principals of an app with the rights that services/README.md gives them.

Apache Kafka: a SASL_SSL listener with SCRAM-SHA-512, and an authorizer that refuses what no ACL allows. Its plain listener stays, for the
broker itself and for whoever hands out rights here. Redis: TLS, and a user with `RIGHTS`. Every password is a canary: a word that must
never be seen anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from headrace.features.redis_connection import RIGHTS
from headrace.local_process import _started
from headrace.local_stack import free_port
from tests import conftest

CANARY = "canary"
REDIS_USER, REDIS_PASSWORD = "mill", "canary-of/redis+1%"
JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
ROOT = Path(__file__).resolve().parents[2]
KEPT = ("HOME", "LANG", "NUMBA_CACHE_DIR", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "XDG_CACHE_HOME")

Rights = Mapping[tuple[ResourceType, str, ResourcePatternType], tuple[AclOperation, ...]]
"""Operations on what is called exactly so, or begins so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody a broker knows."""

    name: str
    password: str

    def properties(self, servers: Secured) -> dict[str, str]:
        """What a client says to be let in."""
        return {
            "bootstrap.servers": servers.kafka,
            **servers.tls,
            "sasl.username": self.name,
            "sasl.password": self.password,
        }


class Secured:
    """A broker and a Redis, shared by all processes of a run: whoever comes first makes them, their layout tells the others the rest."""

    def __init__(self, folder: Path, redis_program: str) -> None:
        certificates = Path(mkdtemp(prefix="certificates-", dir=folder.parent))
        write_certificates(certificates)
        self.stack = conftest._up(
            folder,
            heap_mb=512,
            redis_program=redis_program,
            kafka_listeners={"SASL_SSL": [free_port()]},
            kafka_properties={
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": JAAS,
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(certificates / "broker.pem"),
            },
            redis_settings={
                "tls-port": str(free_port()),
                "tls-cert-file": str(certificates / "redis.pem"),
                "tls-key-file": str(certificates / "redis.key"),
                "tls-auth-clients": "no",
                "requirepass": "canary-of-the-house",
                "user": f"{REDIS_USER} on >{REDIS_PASSWORD} {RIGHTS}",
            },
        )
        layout = self.stack.layout
        authority = Path(layout.kafka_properties["ssl.keystore.location"]).parent
        self.ca, self.unknown_ca = authority / "ca.pem", authority / "unknown-ca.pem"
        self.kafka = f"127.0.0.1:{layout.kafka_listeners['SASL_SSL'][0]}"
        self.redis = f"rediss://127.0.0.1:{layout.redis_settings['tls-port']}/0"
        self.tls = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "ssl.ca.location": str(self.ca)}
        self._house = AdminClient({"bootstrap.servers": self.stack.bootstrap, "log_level": 2})

    def principal(self, name: str, rights: Rights) -> Principal:
        """Make somebody known, with these rights and no others."""
        found = Principal(name=name, password=f"canary-of-{name}")
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._settled(
            self._house.alter_user_scram_credentials([UserScramCredentialUpsertion(name, scram, found.password.encode())]),
        )
        acls = [
            AclBinding(kind, resource, pattern, f"User:{name}", "*", operation, AclPermissionType.ALLOW)
            for (kind, resource, pattern), operations in rights.items()
            for operation in operations
        ]
        self._settled(self._house.create_acls(acls))
        return found

    @staticmethod
    def _settled(asked: Mapping[Any, Future[Any]]) -> None:
        for future in asked.values():
            future.result()


LITERAL, PREFIXED = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
TOPIC, GROUP, TRANSACTIONAL_ID = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE


def worker_rights(app: str, *, predictions: tuple[AclOperation, ...] = (WRITE, DESCRIBE)) -> Rights:
    """What `headrace run worker` needs."""
    return {
        (TOPIC, f"{app}.payments.v1", LITERAL): (READ,),
        (GROUP, app, LITERAL): (READ,),
        (TOPIC, f"{app}.fraud.predictions.v1", LITERAL): predictions,
        (TOPIC, f"{app}.dead-letters.v1", LITERAL): (WRITE, DESCRIBE),
        (TOPIC, f"{app}.facts.v1", LITERAL): (READ, WRITE),
        (TRANSACTIONAL_ID, f"{app}.", PREFIXED): (WRITE, DESCRIBE),
    }


def admin_rights(app: str) -> Rights:
    """What `headrace plan` and `headrace apply` need; the topics of this app all begin with its name."""
    every = (AclOperation.CREATE, AclOperation.DESCRIBE_CONFIGS, READ, WRITE)
    return {(TOPIC, f"{app}.", PREFIXED): every, (GROUP, app, LITERAL): (READ,)}


def write_certificates(folder: Path) -> None:
    """An authority, a certificate for each server, and an authority that signed neither."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "unknown-ca.pem")
    for_broker, for_redis = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
    for_redis.cert_chain_pems[0].write_to_path(folder / "redis.pem")
    for_redis.private_key_pem.write_to_path(folder / "redis.key")
    key = serialization.load_pem_private_key(for_broker.private_key_pem.bytes(), None)
    as_java_reads_it = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "broker.pem").write_bytes(as_java_reads_it + for_broker.cert_chain_pems[0].bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A folder with a settings file, where somebody types commands; who he is comes from the environment."""

    folder: Path
    servers: Secured

    def write_settings(self) -> None:
        """Everything but names and passwords."""
        properties = "\n".join(f'"{name}" = "{value}"' for name, value in self.servers.tls.items())
        (self.folder / "headrace.toml").write_text(
            f'[kafka]\nbootstrap_servers = "{self.servers.kafka}"\n[kafka.properties]\n{properties}\n'
            f'[redis]\nurl = "{self.servers.redis}"\nusername = "{REDIS_USER}"\ntls_ca = "{self.servers.ca}"\n'
            "[worker]\nhttp_port = 0\n",
            encoding="utf-8",
        )

    def start(self, principal: Principal, *arguments: str, redis_password: str = REDIS_PASSWORD, **properties: str) -> Command:
        """Start `headrace ...` as somebody."""
        known = {"sasl.username": principal.name, "sasl.password": principal.password, **properties}
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT))),
            "HEADRACE_KAFKA__PROPERTIES": json.dumps(known),
            "HEADRACE_REDIS__PASSWORD": redis_password,
        }
        number = len(list(self.folder.glob("*.out")))
        return Command(self.folder / f"{number}.out", self.folder / f"{number}.err", arguments, environment)


class Command:
    """A process of ours, what it prints in files."""

    def __init__(self, output: Path, errors: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._output, self._errors = output, errors
        with output.open("wb") as out, errors.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *arguments],
                cwd=output.parent,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        # Should this run be killed, the next one ends the process, by this.
        self._record = output.parent / f"worker-{output.stem}.json"
        self._record.write_text(json.dumps({"pid": self.process.pid, "started": _started(self.process.pid)}), encoding="utf-8")

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(timeout=60)

    @property
    def output(self) -> str:
        """What it said on standard output."""
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it said on standard error."""
        return self._errors.read_text(encoding="utf-8")

    def events(self) -> list[dict[str, object]]:
        """The lines of its log so far."""
        return [json.loads(line) for line in self.errors.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]

    def last_words(self) -> list[str]:
        """What it said beside its log."""
        return [line for line in self.errors.splitlines() if not line.startswith("{")]

    def end(self) -> None:
        """Whatever became of it, it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=20)
        self._record.unlink(missing_ok=True)
