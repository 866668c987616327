from dataclasses import dataclass

import pytest

from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.core.slot import Phase, SlotMachine
from psgd.worker.turns import following, may_renew


@dataclass
class Standing:
    machine: SlotMachine
    renewing: bool = False


def at(slot: int, phase: Phase, clock: int = 0, renewing: bool = False) -> Standing:
    machine = SlotMachine(Slot(slot), Incarnation(0), Rules(Sync(), 4, 1, 10))
    machine.phase, machine.clock = phase, Step(clock)
    return Standing(machine, renewing)


def test_the_slot_that_has_started_the_fewest_iterations_is_next() -> None:
    ahead, behind = at(0, Phase.READY, clock=3), at(1, Phase.READY, clock=2)
    assert following([ahead, behind]) is behind


def test_of_equals_the_lower_number_is_next() -> None:
    first, second = at(1, Phase.READY), at(2, Phase.READY)
    assert following([second, first]) is first


def test_a_slot_whose_push_is_under_way_lets_others_go_first() -> None:
    pushing, ready = at(0, Phase.PUSHING, clock=2), at(1, Phase.READY, clock=2)
    assert following([pushing, ready]) is ready
    assert following([pushing, at(1, Phase.READY, clock=4)]) is None  # its own turn comes before


@pytest.mark.parametrize("phase", [Phase.PULLING, Phase.COMPUTING])
def test_nobody_is_next_while_the_replica_is_taken(phase: Phase) -> None:
    assert following([at(0, phase), at(1, Phase.READY)]) is None


def test_nobody_is_next_while_weights_are_on_their_way() -> None:
    assert following([at(0, Phase.PUSHING, renewing=True), at(1, Phase.READY)]) is None


def test_slots_that_have_ended_do_not_count() -> None:
    ready = at(1, Phase.READY, clock=9)
    assert following([at(0, Phase.ENDED), ready]) is ready
    assert following([at(0, Phase.ENDED)]) is None


@pytest.mark.parametrize(
    ("mode", "other", "renew"),
    [
        (Sync(), Phase.PUSHING, True),
        (Sync(), Phase.READY, False),
        (Sync(), Phase.ENDED, True),
        (Sync(backups=1), Phase.PUSHING, False),
        (Async(), Phase.PUSHING, False),
        (Async(), Phase.ENDED, True),
        (Async(staleness=1), Phase.ENDED, False),
    ],
)
def test_weights_come_with_the_receipts_where_no_other_slot_has_use_for_the_old_ones(
    mode: Mode, other: Phase, renew: bool
) -> None:
    runner = at(0, Phase.COMPUTING)
    assert may_renew(runner, [runner, at(1, other)], mode) is renew
