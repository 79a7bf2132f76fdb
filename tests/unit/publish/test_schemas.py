"""`schemas/` is what the code writes, and what was published once is readable for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from headrace.publish.records import decode_correction, decode_dead_letter_headers, decode_notice, decode_pointer, decode_prediction
from headrace.publish.schemas import example_files, schema_files, text_of, write

FOLDER = Path(__file__).parents[3] / "schemas"
EXAMPLES = sorted((FOLDER / "examples").rglob("*.json"))


def schema(name: str) -> Draft202012Validator:
    """A schema as it is published."""
    return Draft202012Validator(json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")))


def test_the_files_are_those_the_code_writes() -> None:
    """Schemas and examples are generated: a change of a format shows in them (`python -m headrace.publish.schemas schemas`)."""
    written = {FOLDER / name: content for name, content in schema_files().items()}
    written |= {FOLDER / "examples" / name: content for name, content in example_files().items()}
    for path, content in written.items():
        assert path.read_text(encoding="utf-8") == text_of(content), path.name
    there = {path for path in FOLDER.rglob("*.json") if path.parent.name != "kept" and not path.name.startswith("asyncapi")}
    assert there == set(written)


def test_the_command_writes_the_files(tmp_path: Path) -> None:
    """Written into an empty folder, they are the same files."""
    for path in write(tmp_path):
        assert path.read_bytes() == (FOLDER / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("name", [name.removesuffix(".schema.json") for name in schema_files()])
def test_a_schema_is_a_schema(name: str) -> None:
    """Each file is valid JSON Schema, has an id and describes itself."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    assert found["$id"] == f"urn:headrace:{name}:v1"
    assert found["description"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_read_for_ever(path: Path) -> None:
    """Examples of this and of every earlier release fit the schemas, and our own readers take them."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    headers = [(name, text.encode()) for name, text in record["headers"].items()]
    value = json.dumps(record["value"]).encode()
    if path.name.startswith("prediction."):
        schema("prediction").validate(record["value"])
        schema("prediction-headers").validate(record["headers"])
        assert decode_prediction(value).entity == record["key"]
        return
    if path.name.startswith("correction"):
        schema("correction").validate(record["value"])
        schema("correction-headers").validate(record["headers"])
        assert decode_correction(value).entity == record["key"]
        return
    if path.name.startswith("notice"):
        schema("notice").validate(record["value"])
        assert decode_notice(value).pipeline == record["value"]["pipeline"]
        return
    assert path.name.startswith("dead-letter.")
    schema("dead-letter-headers").validate(record["headers"])
    if decode_dead_letter_headers(headers).pointer == "1":
        schema("dead-letter-pointer").validate(record["value"])
        assert decode_pointer(value).offset == int(record["headers"]["__streams.errors.offset"])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("prediction.full", {"score": None}),
        ("prediction.full", {"event_time": "2013-01-01"}),
        ("prediction.full", {"model": {"name": "m", "version": "1", "role": "boss"}}),
        ("prediction.full", {"features": {"a": "1"}}),
        ("prediction.full", {"join": None}),
    ],
)
def test_a_schema_refuses_what_is_no_prediction(name: str, wrong: dict[str, object]) -> None:
    """The schema is no formality: a value of a wrong type does not fit, and our reader does not take it."""
    value = {**example_files()[f"{name}.json"]["value"], **wrong}
    assert not schema("prediction").is_valid(value)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        decode_prediction(json.dumps(value).encode())
