"""What every Kafka client of ours has in common: the properties nobody may change, and what a librdkafka error means to us.

Any librdkafka property can be set, save those the protocol stands on: with another `isolation.level`, say, a group resumes below work that
is already committed. They are refused by name. Limits: a property that librdkafka does not know, or a value it does not take, is found
out only when a client is made.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from headrace.errors import BrokerRefused, FatalError, HeadraceError, SettingsError, SlotTaken, TransientError

Properties = Mapping[str, str | int | float | bool]

LOGGER = logging.getLogger("headrace.kafka")
"""Where librdkafka's own log lines go."""

_PLACE = "headrace sets it from the app's name and the slot"
_PROTOCOL = "exactly-once rests on it"
_CALLBACK = "headrace listens there itself"

FIXED: Mapping[str, str] = {
    "group.id": _PLACE,
    "group.instance.id": _PLACE,
    "transactional.id": _PLACE,
    "enable.auto.commit": _PROTOCOL,
    "enable.auto.offset.store": _PROTOCOL,
    "isolation.level": _PROTOCOL,
    "auto.offset.reset": "a lost offset must stop a worker, not move it",
    "partition.assignment.strategy": "partitions move one by one, never all at once",
    "enable.partition.eof": "catching up ends where a partition ends",
    "allow.auto.create.topics": "a topic is made by `headrace apply`, never by a typing error",
    "enable.idempotence": _PROTOCOL,
    "acks": _PROTOCOL,
    "request.required.acks": _PROTOCOL,
    "partitioner": "look-ups and other clients find a key by murmur2",
    "delivery.report.only.error": _CALLBACK,
    "dr_cb": _CALLBACK,
    "dr_msg_cb": _CALLBACK,
    "on_delivery": _CALLBACK,
    "error_cb": _CALLBACK,
    "stats_cb": _CALLBACK,
    "logger": _CALLBACK,
}
"""Properties that may not be set, and why."""

_MEANING: Mapping[type[HeadraceError], tuple[int, ...]] = {
    SlotTaken: (KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID),
    BrokerRefused: (
        # who we are
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.SECURITY_DISABLED,
        # what we may do
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        # what there is
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_EXCEPTION,
        # what is taken
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.GROUP_MAX_SIZE_REACHED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
    ),
}
NO_RIGHT = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""What is refused for want of an ACL."""
_BY_CODE = {code: meaning for meaning, codes in _MEANING.items() for code in codes}
_MAYBE_A_CUT = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
"""Reported also when a broker goes away in the middle of a handshake."""
_CUT = re.compile(r"disconnect|transport failure|timed out|connection reset", re.IGNORECASE)
"""What the text says then."""

_CREDENTIALS = "check sasl.mechanism, sasl.username and sasl.password in kafka.properties"
_ADVICE: Mapping[int, str] = {
    KafkaError._AUTHENTICATION: _CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: _CREDENTIALS,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _CREDENTIALS,
    KafkaError._SSL: "ssl.ca.location in kafka.properties must name the authority that signed the broker's certificate; a broker that "
    "asks for ours needs ssl.certificate.location and ssl.key.location too",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "a worker's principal needs the ACLs Read on its sources, Write and Describe on its predictions "
    "and dead letters; `headrace apply` needs Create, Read, Write and DescribeConfigs on all topics of the app",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "`headrace apply` makes the topics of an app that are missing",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "our principal needs the ACL Read on the group; it is called like the app",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "a worker's principal needs the ACLs Write and Describe on transactional ids "
    "that begin with the app's name and a dot",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "our principal needs an ACL on the cluster: DescribeConfigs to ask for the brokers' settings",
}
"""What mends a refusal; said behind it."""

KNOWN_S, _PAUSE_S = 3.0, 0.05
"""How long a topic may stay unknown before it is missing, and how often that is asked."""
KNOCK_S = 5.0
"""How long a broker may take until it has let us in."""
KNOCK_PAUSE_S = 0.02

_SHARED = (
    "bootstrap.servers",
    "metadata.broker.list",
    "security.",
    "ssl.",
    "sasl.",
    "enable.ssl.",
    "enable.sasl.",
    "https.",
    "socket.",
    "broker.address.",
    "reconnect.",
    "client.",
    "debug",
)
"""How the properties begin that any client understands."""

Client = TypeVar("Client")
Answer = TypeVar("Answer")


def refuse_fixed(properties: Properties) -> None:
    """Raise `SettingsError` naming every property that may not be set."""
    refused = [f"{name} ({FIXED[name]})" for name in properties if name in FIXED]
    if refused:
        raise SettingsError(f"Kafka properties that cannot be set: {', '.join(refused)}")


def make(kind: type[Client], properties: Mapping[str, Any]) -> Client:
    """A consumer or producer; its log lines go to `LOGGER` when it is polled. Raises `SettingsError` for what librdkafka does not take."""
    try:
        return kind({**properties, "logger": LOGGER})  # type: ignore[call-arg]  # the class takes a dict, `type[Client]` does not say so
    except KafkaException as error:
        raise SettingsError(f"Kafka client: {reason(error).str()}") from error


def make_admin(properties: Properties, on_error: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """An admin client, from properties that may be meant for other clients too. Raises `SettingsError`.

    `on_error` hears inside its `poll` what happens to its connections.
    """
    shared: dict[str, Any] = {name: value for name, value in properties.items() if name.startswith(_SHARED) or name in _SHARED}
    if on_error is not None:
        shared["error_cb"] = on_error
    try:
        return AdminClient({**shared, "log_level": 2})  # nobody polls it: its log lines would never be read
    except KafkaException as error:
        raise SettingsError(f"Kafka client: {reason(error).str()}") from error


class Coordinator:
    """Questions to the coordinator of a group, from a client that is no member of it; any thread may ask.

    Not through the admin client: when the connection breaks under a question to a coordinator, librdkafka's ends the whole process with
    an assertion (https://github.com/confluentinc/librdkafka/issues/4605). Seen in each of three processes that asked all the while a
    broker was restarted, at the first or second restart; those that asked this way lived.
    """

    def __init__(self, properties: Properties, group: str, *, stable: bool) -> None:
        """`stable`: an offset that a pending transaction may move is no answer, and is waited for."""
        shared = {name: value for name, value in properties.items() if name.startswith(_SHARED) or name in _SHARED}
        isolation = "read_committed" if stable else "read_uncommitted"
        fixed = {"group.id": group, "enable.auto.commit": False, "isolation.level": isolation, "log_level": 2}
        try:
            self._client = Consumer({**shared, **fixed, "retry.backoff.ms": 20, "retry.backoff.max.ms": 100})
        except KafkaException as error:
            raise SettingsError(f"Kafka client: {reason(error).str()}") from error

    def committed(self, partitions: Sequence[KafkaPartition], timeout_s: float) -> list[KafkaPartition]:
        """Offsets and metadata of the group, below 0 where it has none, or an error. Raises `KafkaException`."""
        self._client.poll(0)  # it reads nothing; what librdkafka has to say of its connections is taken away
        found: list[KafkaPartition] = self._client.committed(list(partitions), timeout_s)
        return found


def knock(properties: Properties) -> None:
    """See that a broker is there and takes us as who we say we are.

    Without this a wrong password looks like a broker that does not answer, until a time-out. Raises `BrokerRefused` as soon as TLS or the
    broker says no, `TransientError` when it is away, both with the reason; `SettingsError`.
    """
    refuse_fixed(properties)
    doing = f"connecting to Kafka at {properties['bootstrap.servers']}"
    heard: list[KafkaError] = []
    admin = make_admin(properties, heard.append)
    asked = admin.describe_cluster(request_timeout=KNOCK_S)
    while True:
        over = asked.done()
        admin.poll(0 if over else KNOCK_PAUSE_S)
        refusals = [found for found in (translate(error, doing) for error in heard) if isinstance(found, BrokerRefused)]
        if refusals:
            raise refusals[0]
        if over:
            break
    try:
        asked.result()
    except KafkaException as error:
        causes = [one for one in heard if one.code() != KafkaError._ALL_BROKERS_DOWN]
        if not causes:
            advice = "is security.protocol in kafka.properties the one that is spoken there?"
            raise TransientError(f"{doing}: no answer within {KNOCK_S:g} s; {advice} ({reason(error).str()})") from error
        raise translate(causes[-1], doing) from error


def partitions_of(client: Producer | Consumer, topic: str, *, was_let_in: bool = False) -> list[int]:
    """The partitions of a topic. A new one takes a moment to reach every broker, so it is missing only when it is unknown for `KNOWN_S`.

    Raises `BrokerRefused` for a missing topic or right, `TransientError` without an answer.
    """
    doing = f"asking for topic {topic}"
    deadline = time.monotonic() + KNOWN_S
    while True:
        try:
            found = client.list_topics(topic, KNOWN_S).topics[topic]
        except KafkaException as unanswered:
            raise translate(reason(unanswered), doing, was_let_in=was_let_in) from unanswered
        if found.error is None:
            return sorted(found.partitions)
        if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
            raise translate(found.error, doing, was_let_in=was_let_in)
        time.sleep(_PAUSE_S)


def answer(future: Future[Answer], doing: str) -> Answer:
    """Wait for the admin client."""
    try:
        return future.result()
    except KafkaException as error:
        raise translate(reason(error), doing, was_let_in=True) from error


def reason(error: KafkaException) -> KafkaError:
    """The error inside the exception."""
    found: KafkaError = error.args[0]
    return found


def translate(error: KafkaError, doing: str, *, was_let_in: bool = False) -> HeadraceError:
    """Our exception for a librdkafka error: what was being done, what it said, and what mends it.

    `was_let_in`: the broker has taken our credentials before, so a broken handshake is a broker that went away.
    """
    code = _inner_code(error)
    meaning = _BY_CODE.get(code, TransientError)
    if code in _MAYBE_A_CUT and (was_let_in or _CUT.search(error.str())):
        meaning = TransientError
    if meaning is TransientError and (error.fatal() or code == KafkaError._FATAL):
        meaning = FatalError
    advice = f"; {_ADVICE[code]}" if meaning is BrokerRefused and code in _ADVICE else ""
    return meaning(f"{doing}: {error.str()} ({error.name()}){advice}")


def _inner_code(error: KafkaError) -> int:
    """The code of an error; where it says only that it is fatal, the one whose text it carries."""
    code = error.code()
    if code != KafkaError._FATAL:
        return code
    return next((found for found in _BY_CODE if KafkaError(found).str() in error.str()), code)
