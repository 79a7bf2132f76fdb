"""JSON text, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.decode import json_text
from headrace.decode.json_text import MAX_DEPTH, malformed, suspects, too_deep
from tests.unit.decode.verdict import grammar


def depth_of(parsed: object) -> int:
    """Levels of objects and arrays."""
    if isinstance(parsed, dict):
        return 1 + max(map(depth_of, parsed.values()), default=0)
    return 1 + max(map(depth_of, parsed), default=0) if isinstance(parsed, list) else 0


@settings(max_examples=1_000, deadline=None)
@given(value=st.binary(max_size=12) | st.text(alphabet='{}[]",:\\u0dA8 1-.eEtrufalsn\x00é', max_size=16).map(str.encode))
@example(value=b'"\\ud83d\\ude00"')
@example(value=b'"\\"')
@example(value=b"\xef\xbb\xbf1")
@example(value=b"1\x0c")
def test_what_is_malformed_is_what_the_standard_library_cannot_read(value: bytes) -> None:
    """On any bytes the verdict is that of the standard library, held to RFC 8259."""
    try:
        grammar(value)
        readable = True
    except ValueError:
        readable = False
    assert (malformed(value) is None) == readable


nested = st.recursive(
    st.text(alphabet='[]{}"\\', max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=1), inner),
)


@pytest.mark.parametrize("wrapped", [0, 190, 199, 200, 201])
@settings(deadline=None)
@given(value=nested)
def test_depth_counts_levels_and_nothing_in_strings(wrapped: int, value: object) -> None:
    """Brackets in strings are no levels, neighbours share one."""
    text = b"[" * wrapped + json.dumps(value).encode() + b"]" * wrapped
    assert too_deep(text) == (wrapped + depth_of(value) > MAX_DEPTH)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "make",
    [lambda: b'{"a":"\xc3"}', lambda: b'{"a":"\xa9"}', lambda: b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", lambda: b'{"\xff":1}'],
)
def test_a_bad_value_is_suspected_wherever_it_stands(make: Callable[[], bytes], position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at values together misses none, also where they are looked at in halves; neighbours complete no broken sequence."""
    values = [b'{"a":"\xc3\xa9"}', b'{"b":[1]}', b' {"c":{}} ']
    assert suspects(values) == []
    values[position] = make()
    for limit in (json_text.JOINED_BYTES, 10):
        monkeypatch.setattr(json_text, "JOINED_BYTES", limit)
        assert [number for number in suspects(values) if malformed(values[number])] == [position]
