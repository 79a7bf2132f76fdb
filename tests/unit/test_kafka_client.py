from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from headrace.errors import BrokerRefused, FatalError, HeadraceError, SettingsError, SlotTaken, TransientError
from headrace.kafka_client import FIXED, knock, refuse_fixed, translate

HANDSHAKE = KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed due to invalid credentials"


@pytest.mark.parametrize(
    ("code", "text", "meaning", "says"),
    [
        (*HANDSHAKE, BrokerRefused, "check sasl.mechanism, sasl.username and sasl.password in kafka.properties"),
        (
            KafkaError._SSL,
            "SSL handshake failed: certificate verify failed",
            BrokerRefused,
            "ssl.ca.location in kafka.properties must name",
        ),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, None, BrokerRefused, "Write and Describe on its predictions"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, None, BrokerRefused, "Read on the group"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, None, BrokerRefused, "transactional ids that begin with the app's name"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, None, BrokerRefused, "DescribeConfigs"),
        (KafkaError.FENCED_INSTANCE_ID, None, SlotTaken, "FENCED_INSTANCE_ID"),
        (KafkaError._TRANSPORT, None, TransientError, "_TRANSPORT"),
    ],
)
def test_an_error_says_what_was_done_what_it_was_and_what_mends_it(
    code: int, text: str | None, meaning: type[HeadraceError], says: str
) -> None:
    """A librdkafka error becomes ours in one line; what is refused for good names the setting or the right that is missing."""
    found = translate(KafkaError(code, text) if text else KafkaError(code), "opening the gate")
    assert type(found) is meaning
    assert str(found).startswith("opening the gate: ")
    assert says in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("text", ["SASL authentication error: Disconnected", "handshake failed: Local: Broker transport failure"])
def test_a_handshake_that_was_cut_is_no_refusal(text: str) -> None:
    """A broker that goes away while it lets us in is away, whatever the code; so is one that has let us in before."""
    assert type(translate(KafkaError(KafkaError._AUTHENTICATION, text), "connecting")) is TransientError
    assert type(translate(KafkaError(*HANDSHAKE), "connecting", was_let_in=True)) is TransientError


def test_an_unknown_fatal_error_ends_the_process() -> None:
    """What librdkafka calls fatal and no row explains is fatal for us too."""
    assert type(translate(KafkaError(KafkaError._FATAL, "broken wheel"), "grinding")) is FatalError


def test_fixed_properties_are_refused_by_name() -> None:
    """Every property the protocol stands on is refused before anything connects, with its reason."""
    for name, why in FIXED.items():
        with pytest.raises(SettingsError) as refused:
            knock({"bootstrap.servers": "127.0.0.1:9092", name: "x"})
        assert f"{name} ({why})" in str(refused.value)
    refuse_fixed({"sasl.password": "x", "linger.ms": 5})
