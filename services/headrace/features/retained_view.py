"""What a pipeline with corrections keeps beside its views: the newest events of each entity, and the state from before them.

To the store it is one more view, with a fingerprint of its own under the same compare-and-set, so whatever happens to states happens to it:
it is read, written, swept, caught up, rebuilt, saved and verified as they are. What it holds of an entity stands in `retained.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from headrace.expression import Expression
from headrace.features.view import FeatureView, fingerprint_of

RETAINED_LAYOUT_VERSION = 1
MOST_RETAINED = 128
"""So many events of an entity are kept at most; what an event older than all of them changes in them is told all the same."""


class RetainedView:
    """The retained events of one pipeline: those of its views, with `extras` (its event features) and the field `join` of each."""

    def __init__(
        self,
        pipeline: str,
        views: Sequence[FeatureView],
        *,
        extras: Sequence[tuple[str, Expression]],
        join: str | None,
        most: int = MOST_RETAINED,
    ) -> None:
        self.pipeline = pipeline
        self.name = f"{pipeline}.retained"
        self.views = tuple(views)
        self.extras = tuple(extras)
        self.join = join
        self.most = most
        self.source = views[0].source
        self.entity = views[0].entity

    @property
    def fields(self) -> frozenset[str]:
        """The event fields it reads."""
        of_views = (view.fields for view in self.views)
        return frozenset().union(*of_views, *(one.fields() for _, one in self.extras), {self.join} if self.join else ())

    @property
    def longest_window_ms(self) -> int:
        """The longest window of its views."""
        return max(view.longest_window_ms for view in self.views)

    @property
    def longest_pane_ms(self) -> int:
        """The longest pane of its views."""
        return max(view.longest_pane_ms for view in self.views)

    def bytes_per_entity(self) -> int:
        """The most bytes it can take of one entity in the store, without the texts outcomes are joined by."""
        streams = len({stream.key() for view in self.views for stream in view.streams})
        return sum(view.bytes_per_entity()["total"] for view in self.views) + self.most * (20 + 8 * (streams + len(self.extras)))

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything that decides about what is kept, in hex."""
        return fingerprint_of(
            {
                "retained": RETAINED_LAYOUT_VERSION,
                "pipeline": self.pipeline,
                "views": [view.canonical() for view in self.views],
                "extras": [[name, expression.canonical()] for name, expression in self.extras],
                "join": self.join,
                "most": self.most,
            }
        )

    @property
    def fp(self) -> str:
        """Its name in the store."""
        return self.fingerprint[:16]

    def __repr__(self) -> str:
        return f"RetainedView({self.pipeline!r})"


Kept = FeatureView | RetainedView
"""Whatever the store keeps of entities."""
