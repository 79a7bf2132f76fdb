"""Where the bytes of model versions are kept: by their sha256, so that nothing under a name can change unnoticed.

`get` hashes what it gives: bytes that were damaged, or put in another's place, are refused before anybody loads them. Putting the same
bytes again mends them. Nothing is ever deleted here: a retired version may come back, and what scored a record must be found again.

    MemoryArtifacts             in this process: the embedded engine, tests
    FolderArtifacts             a folder that all processes see
    redis_artifacts.py          beside the online store, the default
    object_artifacts.py         an object store, by URL
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Protocol

from headrace.errors import ArtifactDamaged, ArtifactMissing, StoreRefused, TransientError

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtifactStore(Protocol):
    """Bytes by sha256. All methods raise `TransientError` while the place is away and `StoreRefused` when it must not be used."""

    def put(self, content: bytes) -> str:
        """Keep bytes; answers their sha256 once they are safe. What is there already stays, or is mended."""

    def get(self, sha256: str) -> bytes:
        """The bytes of that sha256. Raises `ArtifactMissing` where there are none, `ArtifactDamaged` where there are others."""

    def has(self, sha256: str) -> bool:
        """Whether there is something under that sha256; whether it is right is found out by `get`."""

    def close(self) -> None:
        """Close the connections."""


def sha256_of(content: bytes) -> str:
    """The name of some bytes."""
    return hashlib.sha256(content).hexdigest()


def is_name(sha256: str) -> bool:
    """Whether a text is a sha256 in hex, and so no path that leads elsewhere."""
    return _SHA256.fullmatch(sha256) is not None


def undamaged(sha256: str, content: bytes | None, place: str) -> bytes:
    """The bytes found under a sha256 in a place, if they are the right ones. Raises `ArtifactMissing`, `ArtifactDamaged`."""
    if content is None:
        raise ArtifactMissing(
            f"{place} holds no artifact {sha256[:16]}: it was removed, or this process looks in another place than the one that registered "
            "it (headrace config show names it); put it back: headrace model mend FILE.onnx"
        )
    found = sha256_of(content)
    if found != sha256:
        raise ArtifactDamaged(
            f"artifact {sha256[:16]} in {place} is not what was registered: its {len(content):,} bytes have the sha256 {found[:16]}. It is "
            "not loaded; find out who changed it, then put the right bytes back: headrace model mend FILE.onnx"
        )
    return content


class MemoryArtifacts:
    """Artifacts in this process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        """Keep bytes."""
        sha256 = sha256_of(content)
        self.kept[sha256] = content
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes of that sha256."""
        return undamaged(sha256, self.kept.get(sha256), "memory")

    def has(self, sha256: str) -> bool:
        """Whether there is something under that sha256."""
        return sha256 in self.kept

    def close(self) -> None:
        """Nothing is open."""


class FolderArtifacts:
    """Artifacts as files `<sha256>.onnx` of a folder, each written aside and then renamed, so that nobody sees half of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, content: bytes) -> str:
        """Keep bytes; they are on the disk when this returns."""
        sha256 = sha256_of(content)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(file.fileno(), 0o644)
                    os.fsync(file.fileno())
                Path(aside).replace(self._path(sha256))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    Path(aside).unlink()
        except OSError as error:
            raise self._meaning(error) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes of that sha256."""
        content = None
        if is_name(sha256):
            try:
                content = self._path(sha256).read_bytes()
            except FileNotFoundError:
                content = None
            except OSError as error:
                raise self._meaning(error) from error
        return undamaged(sha256, content, str(self._folder))

    def has(self, sha256: str) -> bool:
        """Whether there is something under that sha256."""
        return is_name(sha256) and self._path(sha256).is_file()

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"

    def _meaning(self, error: OSError) -> StoreRefused | TransientError:
        if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError):
            return StoreRefused(f"models.artifacts: folder {self._folder} cannot be used ({error.strerror}): check its rights")
        return TransientError(f"models.artifacts: folder {self._folder} cannot be used now ({error.strerror})")
