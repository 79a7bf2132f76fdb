"""Where the files of an app's model versions are, by the settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace.definition import App
from headrace.features.redis_connection import RedisServer, Tls
from headrace.predict.artifacts import ArtifactStore, FolderArtifacts
from headrace.predict.object_artifacts import ObjectArtifacts
from headrace.predict.redis_artifacts import RedisArtifacts
from headrace.settings import Settings

BESIDE_STATES = "redis"


def artifact_store(app: App, settings: Settings) -> ArtifactStore:
    """The artifacts of an app. Raises `SettingsError` for a URL that no installed library knows."""
    place = settings.models.artifacts
    if place == BESIDE_STATES:
        return RedisArtifacts(_server(settings), app.name)
    parts = urlsplit(place)
    if parts.scheme == "file":
        return FolderArtifacts(Path(unquote(parts.path)))
    return ObjectArtifacts(place) if "://" in place else FolderArtifacts(Path(place).expanduser())


def _server(settings: Settings) -> RedisServer:
    redis = settings.redis
    tls = Tls(ca=redis.tls_ca, certificate=redis.tls_certificate, key=redis.tls_key) if redis.url.startswith("rediss://") else None
    return RedisServer(
        url=redis.url,
        username=redis.username,
        password=None if redis.password is None else redis.password.get_secret_value(),
        tls=tls,
        timeout_s=redis.timeout_ms / 1_000,
    )
