from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headrace.training.spark_count import Counted, chunks_of, cut_partitions, events_in, refused_in, spans_in
from headrace.types import NO_WATERMARK_MS

Told = tuple[int, int, str | None, int]
"""Of a record: partition, chunk, why it is no event, event time."""
records = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.sampled_from([None, None, "CONTRACT", "MALFORMED"]), st.integers(0, 99))
)


def counted(found: list[Told]) -> list[Counted]:
    """As Spark counts them; the offset of a record is its place."""
    groups: dict[tuple[int, int, str | None], list[tuple[int, int]]] = {}
    for offset, (partition, chunk, reason, time_ms) in enumerate(found):
        groups.setdefault((partition, chunk, reason), []).append((offset, time_ms))
    return [
        Counted(
            partition=partition,
            chunk=chunk,
            reason=reason,
            records=len(some),
            newest_ms=max(time_ms for _, time_ms in some) if reason is None else None,
            first=some[0][0],
            last=some[-1][0],
        )
        for (partition, chunk, reason), some in groups.items()
    ]


@given(records, st.integers(1, 5))
def test_chunks_know_the_watermark_before_them_and_their_file(found: list[Told], rows_a_file: int) -> None:
    """A chunk begins with the greatest event time of those before it in its partition; files follow the order of rows, none is empty."""
    events = [(partition, chunk, time_ms) for partition, chunk, reason, time_ms in found if reason is None]
    chunks = chunks_of(counted(found), rows_a_file)
    assert [(one.partition, one.number) for one in chunks] == sorted({(partition, chunk) for partition, chunk, _ in events})
    for one in chunks:
        before = [time_ms for partition, chunk, time_ms in events if partition == one.partition and chunk < one.number]
        assert one.before_ms == max(before, default=NO_WATERMARK_MS)
    numbers = [one.part for one in chunks]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(set(numbers))))
    sizes = Counter({(one.partition, one.number): 0 for one in chunks})
    sizes.update((partition, chunk) for partition, chunk, _ in events)
    for part in set(numbers[:-1]):
        mine = [sizes[one.partition, one.number] for one in chunks if one.part == part]
        assert sum(mine[:-1]) < rows_a_file or len(mine) == 1


@given(records)
def test_the_account_is_complete(found: list[Told]) -> None:
    """Every record is an event or refused for a reason; partitions reach from the first to behind the last, empty ones are named."""
    some = counted(found)
    reasons = Counter(reason for _, _, reason, _ in found if reason is not None)
    assert refused_in(some) == reasons
    assert events_in(some) == len(found) - reasons.total()
    spans = spans_in((one.partition, one.first, one.last) for one in some)
    places = {number: [offset for offset, one in enumerate(found) if one[0] == number] for number in range(3)}
    highest = max((number for number, offsets in places.items() if offsets), default=-1)
    assert spans == {
        number: (min(offsets, default=0), max(offsets, default=-1) + 1) for number, offsets in places.items() if number <= highest
    }
    assert cut_partitions(spans) == [number for number, offsets in places.items() if number <= highest and min(offsets, default=0)]
