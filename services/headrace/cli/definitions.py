"""Finding an app from `module:attribute`, for every command that works on one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from headrace.definition import App
from headrace.errors import DefinitionError


def load_app(reference: str) -> App:
    """The app that `module:attribute` names; the current folder is searched too. Raises `DefinitionError`."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise DefinitionError(f"--app {reference!r}: write module:attribute, for example headrace.demo.flights:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and module_name.startswith(missing.name):
            raise DefinitionError(
                f"--app {reference!r}: there is no module {module_name!r} here ({here}) or among the installed packages"
            ) from missing
        raise
    found = getattr(module, attribute, None)
    if not isinstance(found, App):
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f"it has {', '.join(f'{module_name}:{name}' for name in apps)}" if apps else f"{module_name} holds no hr.App"
        raise DefinitionError(f"--app {reference!r} is no app: {hint}")
    return found
