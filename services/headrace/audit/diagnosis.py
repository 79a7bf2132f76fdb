"""Which mistake gives what was served.

Of entities with a wrong vector some are kept as *cases*: their events, and what was served for those around the first wrong vector. Each
known mistake tells the cases again (`skews.py`). A wrong value that comes out as it was served speaks for the mistake; a right one that
does not come out right any more speaks against it. The mistake with the most on its side is named, what it explains is set aside, and the
rest is asked again.

Limits: what no known mistake gives stays unexplained, and that is said. Cases are few, so that memory and time do not grow with the log.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.audit.findings import Explanation
from headrace.audit.history import Life, Occurrence, Served, same, told, vector
from headrace.audit.skews import Skew, known_skews, stretches
from headrace.audit.wanted import Wanted
from headrace.source import Source

CASES_A_FEATURE, MOST_CASES = 6, 40
"""So many cases are kept because of one feature, and in all."""
BEFORE, BEHIND, AFTERWARDS = 12, 24, 12
"""So many vectors around the first wrong one are looked at, and so many events more are known: some mistakes see what comes later."""
_TRIED = 4
"""So many wrong vectors of a feature a mistake is tried on before it is looked at closely."""
_LEAST_SHARE, _LEAST_REST = 0.5, 0.1
"""A mistake is named if it explains half of the wrong values of some feature, and a tenth of all of them."""

Value = tuple[int, int, str]
"""A case, a place in it, a feature."""


@dataclass(slots=True, kw_only=True, eq=False)
class Case:
    """An entity with a wrong vector."""

    occurrences: list[Occurrence]
    first: int
    """The place of its first wrong vector."""

    def follow(self, occurrence: Occurrence) -> None:
        """One more event of the entity."""
        if occurrence not in self.occurrences and len(self.occurrences) < self.first + 1 + BEHIND + AFTERWARDS:
            self.occurrences.append(occurrence)

    def places(self, pipeline: str) -> Iterator[tuple[int, Served]]:
        """The places that are looked at, and what was served there."""
        for place in range(max(0, self.first - BEFORE), min(self.first + 1 + BEHIND, len(self.occurrences))):
            found = self.occurrences[place].served.get(pipeline)
            if found is not None:
                yield place, found


@dataclass(slots=True, kw_only=True, eq=False)
class Cases:
    """The cases of one pipeline."""

    cases: dict[Life, Case] = field(default_factory=dict)
    """By the life of the entity."""
    _because: Counter[str] = field(default_factory=Counter)

    def add(self, life: Life, place: int, wrong: Sequence[str]) -> None:
        """A wrong vector, and the features that are."""
        if life in self.cases or len(self.cases) >= MOST_CASES or all(self._because[name] >= CASES_A_FEATURE for name in wrong):
            return
        self._because.update(wrong)
        self.cases[life] = Case(occurrences=life.occurrences[: place + 1 + BEHIND + AFTERWARDS], first=place)

    def follow(self, life: Life, occurrence: Occurrence) -> None:
        """One more event of an entity, which may be a case."""
        case = self.cases.get(life)
        if case is not None:
            case.follow(occurrence)


@dataclass(slots=True, kw_only=True)
class _Evidence:
    """What speaks for a mistake, and how much against it."""

    explains: set[Value] = field(default_factory=set)
    against: Counter[str] = field(default_factory=Counter)
    places: list[tuple[int, int, int]] = field(default_factory=list)

    def worth(self, open_: set[Value], *, each: bool) -> tuple[int, set[Value]]:
        """How much more speaks for it than against it, of what is not explained yet, and what it explains of that."""
        found = self.explains & open_
        if not each:
            return len(found) - self.against.total(), found
        by_feature = Counter(name for _, _, name in found)
        good = {name for name, count in by_feature.items() if count > self.against[name]}
        return sum(by_feature[name] - self.against[name] for name in good), {value for value in found if value[2] in good}


class Diagnosis:
    """Names mistakes. `wanted`: the pipeline's features; `earlier`: those of definitions that were applied before."""

    def __init__(
        self,
        source: Source,
        pipeline: str,
        wanted: Sequence[Wanted],
        earlier: Sequence[tuple[str, Sequence[Wanted]]],
        cases: Sequence[Case],
    ) -> None:
        self._pipeline, self._wanted, self._cases = pipeline, wanted, cases
        self._skews = known_skews(source, wanted, earlier)
        self._wrong: set[Value] = set()
        self._right: dict[tuple[int, int], list[str]] = {}
        self._firsts = [case.first for case in cases]
        for number, case in enumerate(cases):
            for place, served in case.places(pipeline):
                answers = vector(wanted, told(case.occurrences, place))
                names = {one.name for one in wanted if not same(served.get(one.name), answers[one.name])}
                self._wrong |= {(number, place, name) for name in names}
                self._right[number, place] = [one.name for one in wanted if one.name not in names]
                if names:
                    self._firsts[number] = min(self._firsts[number], place)

        self._tried = self._few()

    def explanations(self) -> list[Explanation]:
        """The mistakes that give what was served, the one that explains most first."""
        evidence = [(skew, self._evidence(skew)) for skew in self._skews]
        evidence += self._of_stretches()
        found: list[Explanation] = []
        open_ = set(self._wrong)
        while open_:
            worths = [one.worth(open_, each=skew.each) for skew, one in evidence]
            best = max(range(len(worths)), key=lambda number: worths[number][0])
            worth, explained = worths[best]
            if worth <= 0 or not self._enough(explained, first=not found):
                break
            skew, proof = evidence[best]
            found.append(
                Explanation(
                    pipeline=self._pipeline,
                    kind=skew.kind,
                    says=skew.says + _where(proof.places),
                    features=sorted({name for _, _, name in explained}),
                    explained=len(explained),
                    of=len(self._wrong),
                )
            )
            open_ -= explained
        return found

    def _enough(self, explained: set[Value], *, first: bool) -> bool:
        of = Counter(name for _, _, name in self._wrong)
        by_feature = Counter(name for _, _, name in explained)
        share = max((count / of[name] for name, count in by_feature.items()), default=0.0)
        return share >= _LEAST_SHARE and (first or len(explained) >= _LEAST_REST * len(self._wrong))

    def _evidence(self, skew: Skew) -> _Evidence:
        """What speaks for and against one mistake; nothing if more speaks against it in a few wrong vectors of each feature."""
        found = _Evidence()
        changed: dict[int, Sequence[Occurrence]] = {}
        for number, place in self._tried:
            self._judge(skew, number, place, changed, found)
        if found.worth(self._wrong, each=skew.each)[0] <= 0:
            return _Evidence()
        for number, place in self._right.keys() - set(self._tried):
            self._judge(skew, number, place, changed, found)
        return found

    def _few(self) -> list[tuple[int, int]]:
        """Some wrong vectors of each feature, of several entities."""
        found: dict[tuple[int, int], None] = {}
        seen: Counter[str] = Counter()
        for number, place, name in sorted(self._wrong, key=lambda value: (value[1], value[0], value[2])):
            if seen[name] < _TRIED:
                seen[name] += 1
                found[number, place] = None
        return list(found)

    def _of_stretches(self) -> list[tuple[Skew, _Evidence]]:
        """Losses and repetitions: in each case the stretch that explains most, then all cases together."""
        together: dict[str, tuple[Skew, _Evidence]] = {}
        for number, case in enumerate(self._cases):
            best: dict[str, tuple[int, Skew, _Evidence]] = {}
            first = self._firsts[number]
            for skew in stretches(first, case.occurrences):
                evidence = _Evidence()
                self._judge(skew, number, first, {}, evidence)
                if len(evidence.explains) <= evidence.against.total():
                    continue
                for place, _ in case.places(self._pipeline):
                    if place != first:
                        self._judge(skew, number, place, {}, evidence)
                worth, _ = evidence.worth(self._wrong, each=False)
                if worth > best.get(skew.kind, (0, skew, evidence))[0]:
                    best[skew.kind] = (worth, skew, evidence)
            for kind, (_, skew, evidence) in best.items():
                _, whole = together.setdefault(kind, (skew, _Evidence()))
                whole.explains |= evidence.explains
                whole.against += evidence.against
                if skew.place is not None:
                    whole.places.append(skew.place)
        return list(together.values())

    def _judge(self, skew: Skew, number: int, place: int, changed: dict[int, Sequence[Occurrence]], found: _Evidence) -> None:
        """Compare one served vector with what the mistake gives."""
        case = self._cases[number]
        if number not in changed:
            changed[number] = skew.seen(case.occurrences, self._firsts[number])
        answers = skew.recompute(self._wanted, changed[number], place)
        served: Mapping[str, float | None] = case.occurrences[place].served[self._pipeline]
        right = self._right[number, place]
        found.against.update(name for name in right if name in answers and not same(served.get(name), answers[name]))
        for one in self._wanted:
            name, answer = one.name, answers.get(one.name)
            # Where any value would do, none is explained.
            wrong = (number, place, name) in self._wrong and answer is not None and math.isfinite(answer.off)
            if wrong and answer is not None and same(served.get(name), answer):
                found.explains.add((number, place, name))


def _where(places: Sequence[tuple[int, int, int]]) -> str:
    """The stretches of each partition together."""
    if not places:
        return ""
    parts = sorted({partition for partition, _, _ in places})
    spans = [
        f"partition {part} offsets {min(first for number, first, _ in places if number == part)}"
        f" to {max(last for number, _, last in places if number == part)}"
        for part in parts
    ]
    return f" ({', '.join(spans)})"
