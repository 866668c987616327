import pytest

from psgd.config import Straggler
from psgd.durations import constant, parse_duration
from psgd.simulation.compute_times import ComputeTimes
from psgd.simulation.world import World
from psgd.worker.straggling import lingering

EXPONENTIAL = World(compute=parse_duration("exp:1"))


def test_a_slots_times_do_not_depend_on_when_others_draw_theirs() -> None:
    alone, among = ComputeTimes(EXPONENTIAL, (), seed=0), ComputeTimes(EXPONENTIAL, (), seed=0)
    drawn = []
    for step in range(5):
        among.draw(step, 0)
        drawn.append(among.draw(step, 1))
    assert [alone.draw(step, 1) for step in range(5)] == drawn


def test_slots_and_seeds_have_times_of_their_own() -> None:
    first, second = ComputeTimes(EXPONENTIAL, (), seed=0), ComputeTimes(EXPONENTIAL, (), seed=1)
    assert len({first.draw(0, 0), first.draw(0, 1), second.draw(0, 0)}) == 3


def test_stragglers_are_slowed_as_in_a_real_run() -> None:
    stragglers = (Straggler(1, parse_duration("exp:50ms"), factor=3.0),)
    times = ComputeTimes(World(compute=constant(2.0)), stragglers, seed=7)
    assert times.draw(4, 0) == 2.0
    assert times.draw(4, 1) == 2.0 + lingering(stragglers, 2.0, 7, 4, 1)
    assert times.draw(4, 1) > 6.0


def test_an_iteration_of_several_mini_batches_takes_the_time_of_all() -> None:
    one, four = ComputeTimes(EXPONENTIAL, (), seed=0), ComputeTimes(EXPONENTIAL, (), seed=0, batches=4)
    assert four.draw(0, 0) == pytest.approx(sum(one.draw(step, 0) for step in range(4)))
