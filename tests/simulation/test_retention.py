"""A log that lost more than it may: the partition is given up, and nothing is skipped."""

from __future__ import annotations

import random

import pytest

from headrace.memory_log import Fate
from tests.simulation.replay import sweeping_always
from tests.simulation.schedule import Burst
from tests.simulation.visits import recent
from tests.simulation.world import World


class ForgetfulWorld(World):
    """Partition 0 loses all records but the last committed one, once there are a few, and the store loses everything."""

    lost = 0

    def _none(self, draw: random.Random) -> None:
        partition = self.partitions[0]
        if not self.lost and self.positions()[partition].offset > 8:
            self.lost = self.positions()[partition].offset - 1
            self.log.delete_before(partition, self.lost)
            self._flush(draw)


class HastyWorld(World):
    """As before, but the records go in the middle of the claim that follows the flush: between its two questions about the log."""

    flushed = lost = False

    def _none(self, draw: random.Random) -> None:
        if not self.flushed and self.positions()[self.partitions[0]].offset > 8:
            self.flushed = True
            self._flush(draw)

    def pause(self, step: str) -> Fate | None:
        fate = super().pause(step)
        if self.flushed and not self.lost and step == "offset_at":
            self.lost = True
            partition = self.partitions[0]
            self.log.delete_before(partition, self.positions()[partition].offset - 1)
        return fate


@pytest.mark.parametrize("seed", [3, 5])
def test_records_that_go_in_the_middle_of_a_claim_are_missed(seed: int) -> None:
    """A claim never takes the first record that is left for the first one that matters."""
    world = HastyWorld(seed=seed)
    try:
        with sweeping_always():
            world.run([Burst(20, number, "none") for number in range(100)])
        assert world.lost
        assert [problem for problem in world.check() if problem.startswith(("features", "diverged", "duplicate"))] == []
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_partition_whose_log_is_too_short_is_given_up(seed: int) -> None:
    """No result is made of what cannot be known, what is committed is right, and the other partition goes on to its end."""
    world = ForgetfulWorld(seed=seed)
    try:
        with sweeping_always():
            world.run([Burst(20, number, "none") for number in range(100)])
        hurt, well = world.partitions
        committed, found = world.positions(), world.check()
        refusals = [problem for problem in found if problem.startswith("refused: visits-0: its state must be rebuilt")]
        assert world.lost
        assert refusals
        assert committed[well].offset == world.ends[well]
        assert committed[hurt].offset < world.ends[hurt]
        assert world.store.head(hurt, recent.fp).offset is None
        missing = {f"lost: {(hurt.topic, 0, offset)} has no result" for offset in range(committed[hurt].offset, world.ends[hurt])}
        assert missing <= set(found)
        alone = "a worker ended: FatalError: no partition can be served: visits-0: its state must be rebuilt"
        assert [
            problem
            for problem in found
            if problem not in missing and problem not in refusals and not problem.startswith((alone, "stuck: visits-0 "))
        ] == []
    finally:
        world.close()
