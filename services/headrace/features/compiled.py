"""How code is compiled: numba, with a cache that knows all of it.

numba keeps what it compiled beside the file of an entry point and makes it anew when that file's time or size changes. It does not look at
the files of the functions that are called from there, and files that are installed from a package may all bear the same time. So the
digest of every file in this folder stands in place of time and size: whatever is changed there, everything is compiled again, once.

No fast-math: contraction or reordering would change bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def sources_digest(folder: Path) -> str:
    """The sha256 of the names and bytes of all Python files in a folder."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


_SOURCES = sources_digest(Path(__file__).parent)


def entry(function: _F) -> _F:
    """Compile a function that Python calls, once for an installation: numba's cache keeps it, with everything it calls.

    Where the cache can be kept nowhere (everything is read-only and `NUMBA_CACHE_DIR` is not set) each process compiles for itself.
    """
    try:
        found: _F = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        found = numba.njit(**_OPTIONS)(function)
    else:
        stamp(found, _SOURCES)
    return found


def stamp(dispatcher: Any, digest: str) -> None:  # noqa: ANN401 - numba's own type says nothing
    """Let the cache of a compiled function hold for this digest only. numba has no public way to say so; a test sees that it works."""
    dispatcher._cache._cache_file._source_stamp = digest  # noqa: SLF001


def inner(function: _F) -> _F:
    """Compile a function that only compiled code calls."""
    found: _F = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)  # type: ignore[call-overload]
    return found
