"""What whoever reads predictions is told before another version answers, as facts.

A pipeline with `notice="24h"` promises that no version becomes champion, or challenger for a share, without a record on the app's facts
topic at least so long before. Who changes a role announces it, waits, and then gives the command:

    announce   notice: champion of p from 1 to 2, not before T      facts topic
    ... T ...
    promote    the command itself                                    control topic

A notice is good for exactly the change that it names, once: when the role has gone to anybody since its author read the control topic, it
is void. A change that cannot wait, or of which notice was given in another way, has its notice too, written right before the command, so
every change has one. `publish/records.py` says what stands in it.

Limits: times are by the clocks of those who give commands, and a notice is as long on its way as a broker takes; one may be followed by
nothing, as nobody is bound to make the change; a pipeline of an old definition announces by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.predict.refusals import share_text, time_text
from headrace.predict.registry import Role, Version
from headrace.predict.roles import Roster
from headrace.publish.records import Notice, decode_notice

Given = Literal["ahead", "elsewhere", "emergency"]
"""How a notice was given: in time, by other means, or not at all before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A role that goes from one version to another."""

    pipeline: str
    what: Literal["champion", "challenger"]
    before: str | None
    to: str | None
    share: float | None = None

    def __str__(self) -> str:
        share = "" if self.share is None else f" for {share_text(self.share)} of the entities"
        return f"the {self.what} of {self.pipeline}: {_version(self.before)} -> {_version(self.to)}{share}"


def change_of(pipeline: str, before: Roster, after: Roster) -> Change | None:
    """The change between two rosters that readers are told of; None where they need not be.

    A challenger that is taken back needs no notice: the champion answers, as it does for the others.
    """
    if before.champion != after.champion:
        return Change(pipeline=pipeline, what="champion", before=before.champion, to=after.champion)
    if after.challenger is not None and (before.challenger, before.share) != (after.challenger, after.share):
        return Change(pipeline=pipeline, what="challenger", before=before.challenger, to=after.challenger, share=after.share)
    return None


def change_in(notice: Notice) -> Change:
    """The change that a notice is of."""
    share = notice.share if isinstance(notice.share, float) else None
    return Change(pipeline=notice.pipeline, what=notice.what, before=notice.before, to=notice.to, share=share)


def notices_in(facts: Sequence[bytes | None], pipeline: str | None = None) -> list[Notice]:
    """All notices, or those of one pipeline, in the order in which they were given; what no notice can be read from is passed over."""
    found = [notice for value in facts if (notice := notice_in(value)) is not None]
    return [notice for notice in found if pipeline in {None, notice.pipeline}]


def notice_in(value: bytes | None) -> Notice | None:
    """The notice in a record's value; None where it is none."""
    try:
        return decode_notice(value or b"")
    except ValueError:
        return None


def standing(notices: Iterable[Notice], change: Change, versions: Iterable[Version]) -> Notice | None:
    """The notice of exactly this change that is over first, among those given ahead; None where there is none, or it is void.

    `versions` are those of the pipeline, with their histories.
    """
    last = max((one.offset for version in versions for one in version.history if one.role is Role(change.what)), default=-1)
    mine = [one for one in notices if one.given == "ahead" and change_in(one) == change and one.expects > last]
    return min(mine, key=lambda one: one.at_ms, default=None)


def notice_text(notice: Notice) -> str:
    """A notice, for people."""
    when = {
        "ahead": f"not before {time_text(notice.at_ms)}",
        "elsewhere": f"at {time_text(notice.at_ms)}, as was told elsewhere",
        "emergency": f"at {time_text(notice.at_ms)}, an emergency",
    }[notice.given]
    reason = f": {notice.reason}" if isinstance(notice.reason, str) else ""
    return f"notice by {notice.by} of {change_in(notice)}, {when}{reason}"


def _version(name: str | None) -> str:
    return "nobody" if name is None else f"version {name}"
