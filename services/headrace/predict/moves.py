"""The life of a model version: its roles, and which moves between them are legal (pure).

    register
       |
       v      shadow           challenge             promote
    registered -----> shadow ------------> challenger -----> champion
       |                |                      |                |
       |     retire     |        retire        |     retire     | another is promoted, rollback, retire
       `----------------+----------------------+----------------+---> retired

    registered <---- withdraw ---- shadow, challenger, retired
    shadow     <----- shadow ----- challenger, retired
    champion   <---- promote ----- shadow, and registered where there is no champion

As a table, a row for each role that a version has now, a column for each it may get:

    now | next    registered  shadow  challenger  champion  retired
    registered        -         yes       -          none      yes
    shadow           yes         -       lone        yes       yes
    challenger       yes        yes      lone        yes       yes
    champion          -          -        -           -       calm
    retired          yes        yes       -           -         -

    none   where there is no champion
    lone   where there is a champion and no other challenger; a challenger may be given another share
    calm   where there is no challenger, as a challenger answers in somebody's place

The champion becomes retired where another is promoted, and where it is rolled back. A rollback brings the champion before the last
promotion back from whatever it is now: that is the one move that stands in no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """What a version is to its pipeline."""

    REGISTERED = "registered"
    """Checked and kept; scores nothing."""
    SHADOW = "shadow"
    """Scores the same vectors, published apart."""
    CHALLENGER = "challenger"
    """Answers in the champion's place for a share of the entities."""
    CHAMPION = "champion"
    """Answers for all others."""
    RETIRED = "retired"
    """Scores nothing any more."""


LIVE = (Role.SHADOW, Role.CHALLENGER, Role.CHAMPION)
"""The roles in which a version scores."""


class Only(StrEnum):
    """Where a move is legal."""

    ALWAYS = "yes"
    NO_CHAMPION = "none"
    LONE_CHALLENGER = "lone"
    NO_CHALLENGER = "calm"


MOVES: Mapping[Role, Mapping[Role, Only]] = MappingProxyType(
    {
        Role.REGISTERED: {Role.SHADOW: Only.ALWAYS, Role.CHAMPION: Only.NO_CHAMPION, Role.RETIRED: Only.ALWAYS},
        Role.SHADOW: {
            Role.REGISTERED: Only.ALWAYS,
            Role.CHALLENGER: Only.LONE_CHALLENGER,
            Role.CHAMPION: Only.ALWAYS,
            Role.RETIRED: Only.ALWAYS,
        },
        Role.CHALLENGER: {
            Role.REGISTERED: Only.ALWAYS,
            Role.SHADOW: Only.ALWAYS,
            Role.CHALLENGER: Only.LONE_CHALLENGER,
            Role.CHAMPION: Only.ALWAYS,
            Role.RETIRED: Only.ALWAYS,
        },
        Role.CHAMPION: {Role.RETIRED: Only.NO_CHALLENGER},
        Role.RETIRED: {Role.REGISTERED: Only.ALWAYS, Role.SHADOW: Only.ALWAYS},
    }
)
"""By the role a version has, the roles it may get; the table above."""
