"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "services" / "headrace"

TOP_LEVEL = {
    *("Makefile", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "docker-compose.yml"),
    *("deploy", "schemas", "services", "tests"),
    *(".ci", ".dockerignore", ".editorconfig", ".gitattributes", ".gitignore"),
}

FORBIDDEN_WORDS = set(re.findall(r"\w+", "data info item util helper manager handler processor context payload common core base"))

DICTATED_NAMES = {
    ("conftest.py", "items"),  # an argument of a hook of pytest
    ("cloudevents.py", "data"),  # two attributes of CloudEvents
    ("cloudevents.py", "data_base64"),
    ("small_models.py", "data_location"),  # a field of ONNX
    ("test_onnx_file.py", "data_location"),
}

SHOW_WHAT_IMPORT_LOADS = """
import sys
import headrace
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""

CLIENTS = {"confluent_kafka", "redis", "onnxruntime", "onnx", "numba", "msgspec", "pydantic", "prometheus_client", "structlog", "typer"}


def tracked() -> list[Path]:
    """The files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    """The Python files below some top-level folders."""
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def parsed(path: Path) -> ast.Module:
    """A file as a syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def names_given(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that a file gives to something, with its line: what it only uses, others have named."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield 0, name


def words(name: str) -> set[str]:
    """The words of an identifier or file name, in the singular."""
    if name.startswith("__"):
        return set()  # the language named it
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def test_nothing_else_stands_at_the_top() -> None:
    """The top level holds the entries of the house, and no others."""
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP_LEVEL


def test_every_test_says_in_one_sentence_what_it_proves() -> None:
    """Each test function has a docstring whose first paragraph is a sentence."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in python_files("tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").split("\n\n")[0].rstrip().endswith((".", "?", "!"))
    ]
    assert silent == []


def test_no_name_is_a_word_that_says_nothing() -> None:
    """No identifier, file or test has a word in its name that could stand for anything."""
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in python_files("services", "tests")
        for line, name in [(0, path.stem), *names_given(parsed(path))]
        if words(name) & FORBIDDEN_WORDS and (path.name, name) not in DICTATED_NAMES
    ]
    assert not found, "\n".join(found)


def test_the_check_of_names_sees_them() -> None:
    """Names given in any way are seen, names only used are not."""
    tree = ast.parse(
        "import a as base_b\ndef get_data(item, *, x): self.info = Handler.core\nclass UserManager: pass\nfor k in d.items(): pass"
    )
    given = {name for _, name in names_given(tree) if words(name) & FORBIDDEN_WORDS}
    assert given == {"base_b", "get_data", "item", "info", "UserManager"}


def test_only_the_demo_comes_in_through_the_front_door() -> None:
    """Inside the package nobody but the demo imports the root, and nobody anywhere writes services.headrace."""
    found = []
    for path in python_files("services", "tests"):
        inside = PACKAGE in path.parents and PACKAGE / "demo" not in path.parents
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
                submodules = {child.stem for child in PACKAGE.iterdir()}
                if node.module == "headrace" and all(alias.name in submodules for alias in node.names):
                    continue
            else:
                continue
            if any(module.startswith("services") or (inside and module == "headrace") for module in modules):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "\n".join(found)


def test_importing_the_package_loads_no_client_library() -> None:
    """`import headrace` is light: clients are loaded when a name that needs them is asked for."""
    loaded = subprocess.run(
        [sys.executable, "-c", SHOW_WHAT_IMPORT_LOADS], env={"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True, check=True
    )
    assert set(loaded.stdout.split()) & CLIENTS == set()


def test_nothing_is_skipped_or_expected_to_fail() -> None:
    """No test is marked to be skipped or to fail; only conftest.py may skip, for want of a server."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for path in python_files("tests")
        if path.name != "conftest.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "importorskip", "xfail"}
    ]
    assert not found, "\n".join(found)


def test_no_test_waits_by_sleeping() -> None:
    """Whoever sleeps does so between two looks at a condition, in a while loop."""
    found = []
    for path in python_files("tests"):
        tree = parsed(path)
        looking = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "sleep" and id(node) not in looking
        ]
    assert not found, "\n".join(found)


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The repository builds anywhere: no home folder and no address of a package registry in it."""
    place = re.compile(
        r"/(?:home|root|Users)/\w|\bpypi\.(?:org|python)|pythonhosted|repo\.maven|registry\.npmjs|--(?:extra-)?index-url|--find-links"
    )
    text = [path for path in tracked() if path.suffix not in {".onnx", ".zip", ".gz"} and path != Path(__file__)]
    found = [str(path.relative_to(ROOT)) for path in text if place.search(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-demo.txt"])
def test_locks_hold_hashes_and_agree(name: str) -> None:
    """Every package of a lock is pinned, has hashes, and is the one that the lock of the tests has."""
    tested = pins(ROOT / "deploy" / "requirements-dev.txt")
    locked = pins(ROOT / "deploy" / name)
    assert locked
    assert all(count > 0 for count in locked.values())
    assert set(locked) <= set(tested)


def test_spark_is_locked_beside_what_is_tested() -> None:
    """The lock of Spark's environment has hashes, and of what the tests have too the same versions, save the pandas that PySpark takes."""
    tested, locked = (pins(ROOT / "deploy" / name) for name in ("requirements-dev.txt", "requirements-spark.txt"))
    assert all(count > 0 for count in locked.values())
    assert {pin.partition("==")[0] for pin in set(locked) - set(tested)} == {"pandas", "py4j", "pyspark", "pytz"}


def test_locks_hold_what_the_package_asks_for() -> None:
    """Each dependency of the package is in the lock of the worker, and those of the demo, the tests and Spark in theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"requirements.txt": project["dependencies"]}
    wanted["requirements-dev.txt"] = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["demo"],
    ]
    wanted["requirements-spark.txt"] = [*project["dependencies"], *project["optional-dependencies"]["spark"]]
    for name, dependencies in wanted.items():
        locked = {pin.partition("==")[0] for pin in pins(ROOT / "deploy" / name)}
        assert {re.split(r"[<>=\[ ]", dependency)[0].lower() for dependency in dependencies} <= locked


def test_the_demo_installs_no_client_of_a_server_and_no_frames() -> None:
    """What `make demo` installs holds nothing that only a service or a training needs."""
    locked = {pin.partition("==")[0] for pin in pins(ROOT / "deploy" / "requirements-demo.txt")}
    assert locked & {"pandas", "confluent-kafka", "redis", "hiredis", "lightgbm", "scikit-learn", "onnx"} == set()


def test_a_wheel_holds_all_that_the_package_needs(tmp_path: Path) -> None:
    """The wheel carries the files that are no Python, the Kafka recipe among them, and nothing from beside the package."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    recipe = {f"headrace/local/{path.name}" for path in (ROOT / "deploy" / "local").iterdir()}
    package = {f"headrace/{path.relative_to(PACKAGE)}" for path in tracked() if PACKAGE in path.parents}
    assert {name for name in inside if ".dist-info/" not in name} == recipe | package


def test_make_help_names_every_target() -> None:
    """`make help` is complete, and what CI calls exists."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    assert [target for target in phony if not re.search(rf"^  {target} ", told, re.MULTILINE)] == []
    assert "for target in check test test-stack; do" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def pins(path: Path) -> dict[str, int]:
    """The pinned packages of a lock file, with the number of their hashes."""
    found: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            found[line.split()[0]] = 0
        elif "--hash=sha256:" in line:
            found[next(reversed(found))] += 1
    return found
