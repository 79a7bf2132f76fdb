"""What every place of artifacts promises: the bytes that were put, or an error that says what is wrong (T71)."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import ArtifactDamaged, ArtifactMissing, SettingsError, StoreRefused, TransientError
from headrace.features.redis_connection import Conversation
from headrace.features.redis_connection import RedisServer as Wire
from headrace.local_stack import free_port
from headrace.predict.artifacts import ArtifactStore, FolderArtifacts
from headrace.predict.object_artifacts import ObjectArtifacts
from headrace.predict.redis_artifacts import PIECE_BYTES, RedisArtifacts
from tests.contract.artifacts.conftest import InRedis, Place

SIZES = [0, 1, 1_000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]


def some(size: int, seed: int) -> bytes:
    """Random bytes."""
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_is_given_back(place: Place, seed: int, size: int) -> None:
    """Bytes of any length come back whole, under their sha256, and nothing else is left lying about."""
    content = some(size, seed)
    sha256 = place.artifacts.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert place.artifacts.has(sha256)
    assert place.artifacts.get(sha256) == content
    assert len(place.names()) == 1


def test_putting_twice_is_putting_once(place: Place) -> None:
    """The same bytes are one artifact."""
    assert place.artifacts.put(b"a model") == place.artifacts.put(b"a model")
    assert len(place.names()) == 1


def test_what_is_missing_is_said_to_be(place: Place) -> None:
    """Nothing under that name, or nothing any more: the error says what to do."""
    nothing = hashlib.sha256(b"nothing").hexdigest()
    assert not place.artifacts.has(nothing)
    with pytest.raises(ArtifactMissing, match=f"no artifact {nothing[:16]}.*put it back: headrace model mend"):
        place.artifacts.get(nothing)
    sha256 = place.artifacts.put(b"a model")
    place.lose(sha256)
    assert not place.artifacts.has(sha256)
    with pytest.raises(ArtifactMissing):
        place.artifacts.get(sha256)


@pytest.mark.parametrize("damage", [b"A model", b"a mode", b"", b"a model and more"])
def test_damaged_bytes_are_never_given(place: Place, damage: bytes) -> None:
    """One byte changed, cut, emptied or added to: refused by hash; putting the right bytes again mends it."""
    sha256 = place.artifacts.put(b"a model")
    place.lay(sha256, damage)
    with pytest.raises(ArtifactDamaged, match=f"{sha256[:16]} in .* is not what was registered"):
        place.artifacts.get(sha256)
    place.artifacts.put(b"a model")
    assert place.artifacts.get(sha256) == b"a model"


def test_another_artifact_in_its_place_is_refused(place: Place) -> None:
    """A whole and healthy model under another one's name is not that one."""
    sha256 = place.artifacts.put(b"a model")
    other = place.artifacts.put(b"another model")
    place.lay(sha256, b"another model")
    with pytest.raises(ArtifactDamaged, match=other[:16]):
        place.artifacts.get(sha256)
    assert place.artifacts.get(other) == b"another model"


@pytest.mark.parametrize("name", ["", "../../secret", "*", "A" * 64, "a" * 63])
def test_what_is_no_sha256_is_not_looked_for(place: Place, name: str) -> None:
    """A name that is none leads nowhere."""
    assert not place.artifacts.has(name)
    with pytest.raises(ArtifactMissing):
        place.artifacts.get(name)


def test_many_may_put_the_same_at_once(place: Place, seed: int) -> None:
    """Whoever reads while others put the same bytes again and again sees them whole, always."""
    content = some(2 * PIECE_BYTES + 1, seed)
    sha256 = place.artifacts.put(content)

    def work(number: int) -> bool:
        return place.artifacts.put(content) == sha256 if number % 2 else place.artifacts.get(sha256) == content

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(16)))
    assert len(place.names()) == 1


def test_a_large_model_goes_in_pieces_and_stays(redis_place: InRedis, seed: int) -> None:
    """100 MB pass a server that answers within the usual time-out, and lie there for ever."""
    content = some(100_000_000, seed)
    sha256 = redis_place.artifacts.put(content)
    assert redis_place.artifacts.get(sha256) == content
    assert redis_place.seconds_left(sha256) == -1


def test_a_writer_that_died_leaves_nothing_for_ever(redis_place: InRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces of one who never came to the end are under another name, and have an end."""

    class Died(Exception):
        """The process is gone."""

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Conversation, "transaction", die)
        with pytest.raises(Died):
            redis_place.artifacts.put(b"x")
    assert not redis_place.artifacts.has(hashlib.sha256(b"x").hexdigest())
    (left,) = redis_place.names()
    assert 0 < redis_place.seconds_left(left.rpartition(":")[2]) <= 3_600


def test_a_server_that_is_away_is_transient() -> None:
    """Nobody listens: every call says that it is for a moment."""
    artifacts: ArtifactStore = RedisArtifacts(Wire(url=f"redis://127.0.0.1:{free_port()}", timeout_s=0.2), "app")
    for call in (lambda: artifacts.put(b"x"), lambda: artifacts.get("a" * 64), lambda: artifacts.has("a" * 64)):
        with pytest.raises(TransientError, match="cannot be reached"):
            call()


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be: the setting is named."""
    (tmp_path / "file").write_text("here", encoding="utf-8")
    artifacts = FolderArtifacts(tmp_path / "file" / "below")
    with pytest.raises(StoreRefused, match=r"models\.artifacts: folder .* cannot be used"):
        artifacts.put(b"x")


def test_urls_that_nobody_knows_are_refused_without_their_secrets(fsspec: None) -> None:
    """An unknown scheme, or one whose library is missing: the setting is named, and what stands before the @ is not shown."""
    del fsspec
    for url, text in (("nosuch://key:canary@models/x", "nosuch"), ("s3://key:canary@models/x", "s3fs")):
        with pytest.raises(SettingsError, match=rf"models\.artifacts .*://models/x cannot be used: .*{text}") as refused:
            ObjectArtifacts(url)
        assert "canary" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_named(fsspec: None, tmp_path: Path) -> None:
    """Nothing is made that nobody asked for: who puts into a folder that is missing is told to make it."""
    del fsspec
    with pytest.raises(StoreRefused, match=r"nowhere is not there; make that bucket or folder"):
        ObjectArtifacts(f"file://{tmp_path}/nowhere").put(b"x")
