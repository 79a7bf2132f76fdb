"""States of views that the app has no more: which they are, and away with them.

Every definition that was ever applied is a fact of the app, so nothing has to be looked for in the store. A view that still follows the
commits may be served by a worker that has not been restarted yet: it is left alone, unless told otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.changes import FACT_KIND
from headrace.definition import App
from headrace.features.state_store import StateStore, aside
from headrace.types import TopicPartition
from headrace.verify.scope import facts_of, stable_position
from headrace.verify.subject import Subject

_FP_DIGITS = 16
"""Of a fingerprint, in the store (`FeatureView.fp`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A state of a view that is not in the app any more; `followed`: it stands where the commits are, so somebody may serve it."""

    partition: TopicPartition
    view: str
    fp: str
    followed: bool


def gone_views(app: App, facts: Sequence[bytes | None]) -> dict[str, str]:
    """Name by fingerprint of every view that was applied once and is not in the app."""
    current = {view.fp for reads in app.inputs for view in app.kept_of(reads)}
    found: dict[str, str] = {}
    for value in facts:
        fact = json.loads(value or b"{}")
        if fact.get("kind") == FACT_KIND:
            found |= {view["fingerprint"][:_FP_DIGITS]: name for name, view in fact["views"].items()}
            found |= {fingerprint[:_FP_DIGITS]: name for name, fingerprint in fact.get("retained", {}).items()}
    return {fp: name for fp, name in found.items() if fp not in current}


def leftovers(app: App, subject: Subject, store: StateStore, partitions: Sequence[TopicPartition]) -> list[Leftover]:
    """What is in the store of views that are gone."""
    gone = gone_views(app, facts_of(app, subject))
    found = []
    for name in partitions if gone else ():
        heads = store.read(name, list(gone), ()).heads
        committed = stable_position(app, subject, name).offset
        found += [
            Leftover(partition=name, view=gone[fp], fp=fp, followed=head.offset >= committed)
            for fp, head in heads.items()
            if head.offset is not None
        ]
    return found


def prune(store: StateStore, found: Sequence[Leftover]) -> None:
    """Remove them. A worker that still serves one of them is fenced and folds it anew."""
    for one in found:
        store.drop(one.partition, [one.fp, aside(one.fp)])
