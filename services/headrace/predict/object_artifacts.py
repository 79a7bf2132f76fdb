"""Artifacts in an object store, by URL: `s3://bucket/models`, `gs://...`, `abfs://...`, whatever fsspec knows; an extra of the package.

An artifact is the object `<sha256>.onnx`. Credentials come from where the store's own library looks for them (environment, profile, role
of the machine), never from our settings. Limit: a store's library raises what it likes, so all it raises is taken for a passing trouble
except what says plainly that it is none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from headrace.errors import ArtifactRefused, SettingsError, StoreRefused, TransientError
from headrace.predict.artifacts import is_name, sha256_of, undamaged


class ObjectArtifacts:
    """Artifacts below a URL of a bucket or folder that is there.

    Raises `SettingsError` for a URL that no installed library knows, `ModuleNotFoundError` without fsspec.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only who keeps artifacts there needs it

        try:
            files, folder = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"models.artifacts {self._place} cannot be used: {error}") from error
        self._files: Any = files
        self._folder = str(folder).rstrip("/")

    def put(self, content: bytes) -> str:
        """Keep bytes, unless they lie there: a file system that is no object store shows half of what is written over."""
        sha256 = sha256_of(content)
        if self._holds(sha256):
            return sha256
        try:
            self._files.pipe_file(self._path(sha256), content)
        except Exception as error:
            raise self._meaning(error) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes of that sha256."""
        content: bytes | None = None
        if is_name(sha256):
            try:
                content = self._files.cat_file(self._path(sha256))
            except FileNotFoundError:
                content = None
            except Exception as error:
                raise self._meaning(error) from error
        return undamaged(sha256, content, self._place)

    def has(self, sha256: str) -> bool:
        """Whether there is something under that sha256."""
        if not is_name(sha256):
            return False
        try:
            self._files.invalidate_cache()  # what was listed before somebody else put it
            return bool(self._files.exists(self._path(sha256)))
        except Exception as error:
            raise self._meaning(error) from error

    def close(self) -> None:
        """Its connections are its own affair."""

    def _holds(self, sha256: str) -> bool:
        try:
            self.get(sha256)
        except ArtifactRefused:
            return False
        return True

    def _path(self, sha256: str) -> str:
        return f"{self._folder}/{sha256}.onnx"

    def _meaning(self, error: Exception) -> StoreRefused | TransientError:
        """What an error means for us; its text may hold a signed address, so only its kind is told."""
        if isinstance(error, PermissionError):
            return StoreRefused(f"models.artifacts: {self._place} does not let us in; check the credentials of this process and its rights")
        if isinstance(error, FileNotFoundError):
            return StoreRefused(f"models.artifacts: {self._place} is not there; make that bucket or folder")
        return TransientError(f"models.artifacts: {self._place} cannot be used now ({type(error).__name__})")
