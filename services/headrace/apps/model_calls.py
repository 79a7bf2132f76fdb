"""The registry of an app's models from Python: what `headrace model` does, as functions that `headrace.models` names.

Each opens the servers that the settings name (environment, `config`, else headrace.toml), says one command and closes them. All raise
`RegistryRefused` with the reason and what to do, `TransientError` while a server is away. Of a pipeline with notice=... what changes who
answers waits until notice was given (`headrace model promote --announce`), unless `given` says that it was "elsewhere", or "emergency".
"""

from __future__ import annotations

from pathlib import Path

from headrace.apps.model_commands import Done
from headrace.apps.model_desk import opened
from headrace.apps.rehearsal import MOST
from headrace.definition import App
from headrace.errors import DefinitionError
from headrace.notices import Given
from headrace.predict.model_card import ModelCard
from headrace.predict.registry import Role, Version
from headrace.settings import Settings, load

Config = str | Path | None


def register(
    app: App,
    model: bytes | str | Path,
    *,
    pipeline: str | None = None,
    card: ModelCard | None = None,
    rehearse: int = MOST,
    by: str | None = None,
    config: Config = None,
) -> Done:
    """Let the gate examine a stamped model, and register it; it scores nothing yet.

    `card` counts in place of the one in the file; it is tried on up to `rehearse` of the pipeline's last events.
    """
    content = _content(model)
    with opened(app, _settings(config), by=by) as desk:
        return desk.commands.carry_out(desk.registration(desk.examine(content, pipeline=pipeline, rehearse=rehearse), card=card))


def shadow(app: App, pipeline: str, version: str, *, reason: str | None = None, by: str | None = None, config: Config = None) -> Done:
    """Let a version score every event beside the others, published apart; also takes a challenger back."""
    return _move(app, pipeline, version, Role.SHADOW, reason=reason, by=by, config=config)


def challenge(
    app: App,
    pipeline: str,
    version: str,
    *,
    share: float,
    reason: str | None = None,
    given: Given | None = None,
    by: str | None = None,
    config: Config = None,
) -> Done:
    """Let a shadow answer in the champion's place for a share of the entities, 0 to 1; or give the challenger another share."""
    return _move(app, pipeline, version, Role.CHALLENGER, share=share, reason=reason, given=given, by=by, config=config)


def promote(
    app: App,
    pipeline: str,
    version: str,
    *,
    reason: str | None = None,
    given: Given | None = None,
    by: str | None = None,
    config: Config = None,
) -> Done:
    """Let a version answer as champion; the one before is retired."""
    return _move(app, pipeline, version, Role.CHAMPION, reason=reason, given=given, by=by, config=config)


def rollback(
    app: App, pipeline: str, *, reason: str | None = None, given: Given | None = None, by: str | None = None, config: Config = None
) -> Done:
    """Let the champion before the last promotion answer again."""
    with opened(app, _settings(config), by=by) as desk:
        return desk.change(desk.commands.rollback(pipeline, reason=reason), given=given)


def retire(
    app: App,
    pipeline: str,
    version: str,
    *,
    reason: str | None = None,
    given: Given | None = None,
    by: str | None = None,
    config: Config = None,
) -> Done:
    """End a version, a champion too: then nobody answers but the fallback."""
    return _move(app, pipeline, version, Role.RETIRED, reason=reason, given=given, by=by, config=config)


def withdraw(app: App, pipeline: str, version: str, *, reason: str | None = None, by: str | None = None, config: Config = None) -> Done:
    """Let a version score nothing for now: it is registered, as it was at first."""
    return _move(app, pipeline, version, Role.REGISTERED, reason=reason, by=by, config=config)


def mend(app: App, model: bytes | str | Path, *, config: Config = None) -> list[Version]:
    """Put the file of a registered version back where it was lost or damaged; the versions that it is of."""
    content = _content(model)
    with opened(app, _settings(config)) as desk:
        return desk.commands.mend(content)


def versions(app: App, pipeline: str | None = None, *, config: Config = None) -> list[Version]:
    """All versions, or those of one pipeline, each with its role, card and history."""
    with opened(app, _settings(config)) as desk:
        if pipeline is not None:
            desk.commands.pipeline(pipeline)
        return desk.commands.registry().versions(pipeline)


def _move(
    app: App,
    pipeline: str,
    version: str,
    to: Role,
    *,
    share: float | None = None,
    reason: str | None,
    given: Given | None = None,
    by: str | None,
    config: Config,
) -> Done:
    with opened(app, _settings(config), by=by) as desk:
        return desk.change(desk.commands.move(pipeline, version, to, share=share, reason=reason), given=given)


def _content(model: bytes | str | Path) -> bytes:
    try:
        return model if isinstance(model, bytes) else Path(model).read_bytes()
    except OSError as error:
        raise DefinitionError(f"model {str(model)!r} cannot be read ({error.strerror}): name an .onnx file") from error


def _settings(config: Config) -> Settings:
    return load(None if config is None else Path(config)).settings
