from __future__ import annotations

import subprocess
import sys

import pytest

import headrace as hr

CLIENTS = ("confluent_kafka", "redis", "onnxruntime", "onnx", "numba", "msgspec", "pydantic", "prometheus_client", "structlog", "numpy")


def test_every_public_name_exists() -> None:
    """The public list is true: every name can be had, and every one that can be had is listed."""
    for name in hr.__all__:
        assert getattr(hr, name) is not None
        assert name in dir(hr)
    assert sorted(hr.__all__) == list(hr.__all__)


def test_unknown_name() -> None:
    """A name that does not exist is refused with those that do."""
    with pytest.raises(AttributeError, match="no public name 'Topic'; it has App, "):
        _ = hr.Topic  # type: ignore[attr-defined]


def test_import_loads_no_client_library() -> None:
    """`import headrace` is quick: client libraries are loaded when a name needs them."""
    code = f"import sys, headrace; print([name for name in {CLIENTS} if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
        ).stdout
        == "[]\n"
    )


def test_definitions_load_no_numba() -> None:
    """Declaring views does not load the compiler: a command line that only reads definitions stays quick."""
    code = (
        "import sys, headrace as hr; hr.App, hr.FeatureView, hr.count; print([n for n in ('numba', 'redis', 'onnx') if n in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
        ).stdout
        == "[]\n"
    )
