import math
from dataclasses import replace

import pytest

from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.durations import parse_duration
from psgd.runlog import Notice, Record
from psgd.simulation.failures import Failures
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World

FRAGILE = World(mtbf=5.0, downtime=parse_duration("exp:2"))


def test_a_workers_luck_does_not_depend_on_when_others_draw_theirs() -> None:
    alone, among = Failures(FRAGILE, seed=0), Failures(FRAGILE, seed=0)
    drawn = []
    for _ in range(5):
        among.lifetime(0)
        drawn.append((among.lifetime(1), among.downtime(1)))
    assert [(alone.lifetime(1), alone.downtime(1)) for _ in range(5)] == drawn


def test_workers_and_seeds_have_lifetimes_of_their_own() -> None:
    first, second = Failures(FRAGILE, seed=0), Failures(FRAGILE, seed=1)
    assert len({first.lifetime(0), first.lifetime(1), second.lifetime(0)}) == 3


def test_lifetimes_are_exponential() -> None:
    failures = Failures(FRAGILE, seed=0)
    drawn = [failures.lifetime(0) for _ in range(5000)]
    assert sum(drawn) / len(drawn) == pytest.approx(5.0, rel=0.05)
    assert sum(lifetime > 10.0 for lifetime in drawn) / len(drawn) == pytest.approx(math.exp(-2), rel=0.1)


def test_nobody_fails_where_nothing_is_said_of_it() -> None:
    assert Failures(World(), seed=0).lifetime(0) == math.inf


@pytest.mark.parametrize(("mode", "shards"), [(Sync(), 1), (Sync(), 2), (Async(), 1), (Async(2), 2)], ids=str)
def test_modes_and_networks_are_compared_on_the_same_failures(mode: Mode, shards: int) -> None:
    slow = replace(FRAGILE, latency=parse_duration("exp:50ms"), service=parse_duration("exp:10ms"))
    assert first_failures(mode, shards, slow) == first_failures(Sync(), 1, FRAGILE)


def first_failures(mode: Mode, shards: int, world: World) -> list[str]:
    """Which worker was lost when, as the notices say it."""
    records: list[Record] = []
    run_timing(TimingJob(Rules(mode, 3, shards, 20), workers=3), world, records.append)
    notices = [record.text for record in records if isinstance(record, Notice)]
    assert len(notices) > 10
    return notices[:10]
