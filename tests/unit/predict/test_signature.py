"""The signature: into the metadata and back, and what is said when it does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from headrace.errors import SignatureMismatch
from headrace.expression import Expression, col
from headrace.predict.signature import METADATA_KEY, OutputKind, Signature, ViewVersion, check, event_features_fingerprint


@dataclass(frozen=True)
class _View:
    name: str
    version: int
    fingerprint: str


@dataclass(frozen=True)
class _Pipeline:
    name: str
    feature_names: tuple[str, ...]
    views: tuple[_View, ...]
    event_features: tuple[tuple[str, Expression], ...] = (("dep_delay", col("dep_delay")),)


NAMES = ("tail.count_6h", "tail.mean_6h", "dep_delay")
PIPELINE = _Pipeline("late", NAMES, (_View("tail", 1, "f" * 64),))
SIGNATURE = Signature(
    event_features=event_features_fingerprint(PIPELINE.event_features),
    name="late",
    version="3",
    features=NAMES,
    views=(ViewVersion(name="tail", version=1, fingerprint="f" * 64),),
    output="probabilities",
)


def test_signature_comes_back_from_metadata_unchanged() -> None:
    """What is written into metadata_props is read back as an equal signature."""
    signature = replace(SIGNATURE, kind=OutputKind.VALUE, class_index=0)
    assert Signature.from_metadata(signature.to_metadata()) == signature


def test_equal_signatures_write_equal_bytes() -> None:
    """The metadata entry is canonical, so stamping twice gives the same file."""
    assert SIGNATURE.to_metadata() == replace(SIGNATURE).to_metadata()


def test_missing_signature_names_stamp() -> None:
    """A model without a signature is refused with the call that writes one."""
    with pytest.raises(SignatureMismatch, match=r"headrace\.models\.stamp\(\)"):
        Signature.from_metadata({"other": "entry"})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"format":2}',
        SIGNATURE.to_metadata()[METADATA_KEY].replace("float32", "float64"),
        SIGNATURE.to_metadata()[METADATA_KEY].replace('"version":"3"', '"version":3'),
        SIGNATURE.to_metadata()[METADATA_KEY].replace('"features":[', '"features":[7,'),
        SIGNATURE.to_metadata()[METADATA_KEY].replace("probability", "certainty"),
        SIGNATURE.to_metadata()[METADATA_KEY].replace('"output":', '"outcome":'),
    ],
)
def test_unreadable_signature_is_refused_by_name(text: str) -> None:
    """Damaged metadata is a SignatureMismatch, never another exception."""
    with pytest.raises(SignatureMismatch, match=r"cannot be read.*stamp\(\)"):
        Signature.from_metadata({METADATA_KEY: text})


def test_fitting_pipeline_passes() -> None:
    """Same names in the same order from the same views raise nothing."""
    check(SIGNATURE, PIPELINE)


def test_swapped_features_name_the_first_position() -> None:
    """Two features in the wrong order are reported by position, expected and found."""
    swapped = replace(PIPELINE, feature_names=("tail.count_6h", "dep_delay", "tail.mean_6h"))
    with pytest.raises(SignatureMismatch, match=r"'late' version 3 .*: feature 1 is 'tail.mean_6h' in the model and 'dep_delay' there"):
        check(SIGNATURE, swapped)


def test_extra_feature_in_the_pipeline_is_named() -> None:
    """A feature the model does not know is named with its position."""
    with pytest.raises(SignatureMismatch, match=r"first extra one is feature 3, 'distance' there"):
        check(SIGNATURE, replace(PIPELINE, feature_names=(*NAMES, "distance")))


def test_feature_missing_from_the_pipeline_is_named() -> None:
    """A feature the pipeline no longer gives is named with its position."""
    with pytest.raises(SignatureMismatch, match=r"first extra one is feature 2, 'dep_delay' in the model"):
        check(SIGNATURE, replace(PIPELINE, feature_names=NAMES[:2]))


@pytest.mark.parametrize(
    ("views", "said"),
    [
        ((), r"trained on view 'tail', which the pipeline does not have"),
        ((_View("tail", 2, "f" * 64),), r"trained on version 1 of view 'tail', the pipeline has version 2"),
        (
            (_View("tail", 1, "e" * 64),),
            r"view 'tail' has the same names but another definition \(fingerprint ffffffffffffffff .*eeeeeeeeeeeeeeee now\)",
        ),
        ((_View("tail", 1, "f" * 64), _View("fleet", 1, "a")), r"the pipeline has view 'fleet', which the model was not trained on"),
    ],
)
def test_changed_view_is_named_with_the_fix(views: tuple[_View, ...], said: str) -> None:
    """A view that is gone, new, of another version or another definition is named, and the fix is said."""
    with pytest.raises(SignatureMismatch, match=said + r".*training_frame"):
        check(SIGNATURE, replace(PIPELINE, views=views))


def test_event_feature_that_computes_something_else_is_refused() -> None:
    """An event feature under the same name with another expression does not pass."""
    hidden = replace(PIPELINE, event_features=(("dep_delay", (col("dep_delay") * 60).alias("dep_delay")),))
    with pytest.raises(SignatureMismatch, match=r"an event feature has the same name but computes something else.*training_frame"):
        check(SIGNATURE, hidden)
