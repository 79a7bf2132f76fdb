from __future__ import annotations

import ssl

import pytest
from redis import exceptions

from headrace.errors import HeadraceError, SettingsError, StoreRefused, TransientError
from headrace.features.redis_connection import HEADS, NEXT_HEADS, RedisServer, Tls, meaning, packed

MEANINGS: dict[str, tuple[type[HeadraceError], str]] = {
    "AskError": (TransientError, "moving these keys"),
    "AuthenticationError": (StoreRefused, "redis.password"),
    "AuthenticationWrongNumberOfArgsError": (StoreRefused, "redis.username"),
    "AuthorizationError": (StoreRefused, "redis.password"),
    "BusyLoadingError": (TransientError, "loading its dump"),
    "ClusterCrossSlotError": (StoreRefused, "share a slot"),
    "ClusterDownError": (TransientError, "cluster that is down"),
    "ClusterError": (TransientError, "changing"),
    "ConnectionError": (TransientError, "cannot be reached"),
    "CrossSlotTransactionError": (StoreRefused, "please report"),
    "DataError": (StoreRefused, "refused a call"),
    "ExecAbortError": (TransientError, "nothing was written"),
    "ExternalAuthProviderError": (TransientError, "credential provider"),
    "InvalidPipelineStack": (StoreRefused, "please report"),
    "InvalidResponse": (StoreRefused, "redis.url"),
    "LockError": (StoreRefused, "refused a call"),
    "LockNotOwnedError": (StoreRefused, "refused a call"),
    "MasterDownError": (TransientError, "lost its primary"),
    "MaxConnectionsError": (TransientError, "no connection left"),
    "ModuleError": (StoreRefused, "refused a call"),
    "MovedError": (TransientError, "moving these keys"),
    "NoPermissionError": (StoreRefused, "ACL SETUSER"),
    "NoScriptError": (TransientError, "script"),
    "NoSuchFieldsetError": (StoreRefused, "refused a call"),
    "OutOfMemoryError": (TransientError, "raise maxmemory"),
    "PubSubError": (StoreRefused, "refused a call"),
    "ReadOnlyError": (TransientError, "read-only replica"),
    "RedisClusterException": (StoreRefused, "please report"),
    "RedisError": (StoreRefused, "refused a call"),
    "ResponseError": (StoreRefused, "refused a call"),
    "SlotNotCoveredError": (TransientError, "nobody holds the slot"),
    "TimeoutError": (TransientError, "in time"),
    "TryAgainError": (TransientError, "moving these keys"),
    "WatchError": (TransientError, "nothing was written"),
}
"""What each exception of the client library must become; every one of them stands here."""

NEVER_RAISED_TO_US = {"ChildDeadlockedError", "IncorrectPolicyType"}
"""Not of the library's own tree: they come from features nobody here uses."""


def of_the_library() -> dict[str, type[Exception]]:
    found = {name: value for name, value in vars(exceptions).items() if isinstance(value, type) and issubclass(value, Exception)}
    return {name: value for name, value in found.items() if value.__module__ == exceptions.__name__}


def test_every_exception_of_the_library_is_mapped() -> None:
    """A new exception in a new version of the client library must be decided about before the suite passes."""
    assert set(of_the_library()) - NEVER_RAISED_TO_US == set(MEANINGS)


@pytest.mark.parametrize("name", MEANINGS)
def test_each_exception_has_its_meaning(name: str) -> None:
    """An exception becomes ours, says where and what to do, and keeps the server's own words."""
    text = "7000 127.0.0.1:6380" if name in {"AskError", "MovedError"} else "words of the server"
    ours = meaning(of_the_library()[name](text), "mill:6379")
    expected, says = MEANINGS[name]
    assert type(ours) is expected
    assert says in str(ours)
    assert "mill:6379" in str(ours)
    assert text in str(ours)


@pytest.mark.parametrize(
    ("line", "expected", "says"),
    [
        ("NOREPLICAS Not enough good replicas to write.", TransientError, "min-replicas-to-write"),
        ("MISCONF Redis is configured to save RDB snapshots", TransientError, "cannot save to its disk"),
        ("BUSY Redis is busy running a script.", TransientError, "script"),
        ("UNKILLABLE Sorry the script already executed write commands", TransientError, "script"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreRefused, "hr:"),
        ("ERR unknown command", StoreRefused, "refused a call"),
    ],
)
def test_codes_without_a_class_have_their_meaning(line: str, expected: type[HeadraceError], says: str) -> None:
    """What the library has no class for is told apart by the code its error line begins with."""
    ours = meaning(exceptions.ResponseError(line), "mill:6379")
    assert type(ours) is expected
    assert says in str(ours)


def test_a_meaning_is_one_short_line() -> None:
    """However long and broken the server's words are, the text is one line."""
    text = str(meaning(exceptions.ResponseError("ERR a\nb\n" + "c" * 10_000), "mill:6379"))
    assert "\n" not in text
    assert len(text) < 400


def test_a_refused_certificate_is_found_below_a_connection_error() -> None:
    """The client library hides the reason of a failed handshake in the exception's context; it is a refusal, not an outage."""
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "certificate has expired"
    error = exceptions.ConnectionError("Error 1 connecting")
    error.__context__ = refused
    ours = meaning(error, "mill:6379")
    assert type(ours) is StoreRefused
    assert "certificate has expired" in str(ours)


def test_commands_are_packed_by_length() -> None:
    """Words may hold any bytes, as each goes with its length."""
    assert packed(b"SET", b"k\r\n", b"") == b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n"
    assert (HEADS[12], NEXT_HEADS[0]) == (b"$12\r\n", b"\r\n$0\r\n")


@pytest.mark.parametrize("url", ["", "mill:6379", "http://mill:6379"])
def test_what_is_no_url_is_a_setting_to_change(url: str) -> None:
    """A URL the client library cannot use is a SettingsError that shows the right forms."""
    with pytest.raises(SettingsError, match="redis://host:6379/0"):
        RedisServer(url=url)


def test_certificates_need_tls() -> None:
    """TLS files beside a URL without TLS would be silently unused, so they are refused."""
    with pytest.raises(SettingsError, match="rediss://"):
        RedisServer(url="redis://mill:6379/0", tls=Tls(ca="ca.pem"))


def test_an_address_never_shows_credentials() -> None:
    """What errors call the server is host and port, or the path of its socket."""
    assert RedisServer(url="redis://user:canary@mill:6380/0").address == "mill:6380"
    assert RedisServer(url="redis://mill").address == "mill:6379"
    assert RedisServer(url="unix:///run/mill.sock").address == "/run/mill.sock"
