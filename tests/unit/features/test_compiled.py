from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

from headrace.features.compiled import entry, sources_digest, stamp


def test_nowhere_to_keep_the_cache() -> None:
    """Where numba can keep no cache, a process compiles for itself: code without a file stands for an installation without a place."""
    scope: dict[str, object] = {}
    exec("def double(number):\n    return number + number\n", scope)  # noqa: S102 - code without a file
    double = scope["double"]
    assert callable(double)
    assert entry(double)(2.5) == 5.0


def loaded(file: Path, digest: str) -> ModuleType:
    """The module of a file, its entry point compiled for a digest."""
    spec = importlib.util.spec_from_file_location("called", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stamp(module.answer, digest)
    return module


def test_a_changed_callee_is_compiled_again(tmp_path: Path) -> None:
    """The file of the entry point is the same, to its time: only the digest of all sources tells that what it calls has changed."""
    callee, caller = tmp_path / "callee.py", tmp_path / "caller.py"
    caller.write_text(
        "from headrace.features.compiled import entry, inner\n"
        f"from pathlib import Path\n\n_scope = {{}}\nexec(Path({str(callee)!r}).read_text(), _scope)\n"
        "_number = inner(_scope['number'])\n\n\n"
        "@entry\ndef answer():\n    return _number()\n"
    )
    os.utime(caller, (1_577_836_800, 1_577_836_800))
    callee.write_text("def number():\n    return 1\n")
    first = sources_digest(tmp_path)
    assert loaded(caller, first).answer() == 1
    callee.write_text("def number():\n    return 2\n")
    assert loaded(caller, first).answer() == 1, "without another digest the cache is believed"
    assert sources_digest(tmp_path) != first
    assert loaded(caller, sources_digest(tmp_path)).answer() == 2
