"""Join, ask, pull, compute, push: each phase of a slot, and what does not disturb it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from psgd.core.ids import Incarnation, Shard, Slot, Step, Version
from psgd.core.local_steps import LocalSteps
from psgd.core.messages import (
    Advance,
    Ask,
    Done,
    Ended,
    Granted,
    Join,
    Joined,
    Pull,
    Pulled,
    Push,
    Receipt,
    Refused,
    Reply,
    SlotRequest,
    Status,
)
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.core.slot import (
    Chosen,
    Compute,
    Computed,
    End,
    Finish,
    Halt,
    Phase,
    Replied,
    Send,
    SlotEffect,
    SlotMachine,
    Started,
)
from psgd.errors import InternalError

SLOT, INCARNATION = Slot(3), Incarnation(1)
FIRST, SECOND = Shard(0), Shard(1)
RULES = Rules(Sync(), slots=4, shards=2, steps=None)


def join() -> Join:
    return Join(SLOT, INCARNATION)


def ask(step: int) -> Ask:
    return Ask(SLOT, INCARNATION, Step(step))


def pull(step: int, have: int | None = None) -> Pull:
    return Pull(SLOT, INCARNATION, Step(step), None if have is None else Version(have), whole=have is None)


def pulled(step: int, version: int) -> Pulled:
    return Pulled(Version(version), Step(step), unchanged=False)


def push(step: int, version: int, finite: bool = True, tick: int = 9) -> Push:
    return Push(SLOT, INCARNATION, Step(step), tick, Version(version), finite, absent=(4,))


def receipt(step: int, status: Status = Status.ACCEPTED, following: Granted | Ended | None = None) -> Receipt:
    return Receipt(Step(step), status, "so it is", Version(1), 0, (), following)


def reply(machine: SlotMachine, shard: Shard, request: SlotRequest, what: Reply) -> list[SlotEffect]:
    return machine.handle(Replied(shard, request, what))


def joining() -> SlotMachine:
    machine = SlotMachine(SLOT, INCARNATION, RULES)
    machine.handle(Started())
    return machine


def asking() -> SlotMachine:
    machine = joining()
    for shard in (FIRST, SECOND):
        reply(machine, shard, join(), Joined(0))
    return machine


def ready(step: int = 0) -> SlotMachine:
    machine = asking()
    reply(machine, FIRST, ask(0), Granted(Step(step), tick=9))
    return machine


def pulling() -> SlotMachine:
    machine = ready()
    machine.handle(Chosen((None, None)))
    return machine


def computing() -> SlotMachine:
    machine = pulling()
    for shard, version in ((FIRST, 10), (SECOND, 20)):
        reply(machine, shard, pull(0), pulled(0, version))
    return machine


def pushing() -> SlotMachine:
    machine = computing()
    machine.handle(Computed(finite=True, absent=(4,)))
    return machine


# ------------------------------------------------------------------ phase by phase


def test_a_slot_introduces_itself_to_every_shard() -> None:
    machine = SlotMachine(SLOT, INCARNATION, RULES)
    assert machine.handle(Started()) == [Send(FIRST, join()), Send(SECOND, join())]
    assert machine.phase is Phase.JOINING


def test_when_all_have_welcomed_it_the_slot_asks_the_lead_alone() -> None:
    machine = joining()
    assert reply(machine, SECOND, join(), Joined(0)) == []
    assert reply(machine, FIRST, join(), Joined(0)) == [Send(FIRST, ask(0))]
    assert (machine.phase, machine.clock) == (Phase.ASKING, 0)


def test_a_new_incarnation_goes_on_behind_the_highest_iteration_and_lets_the_others_advance() -> None:
    machine = joining()
    reply(machine, FIRST, join(), Joined(4))
    advance = Advance(SLOT, INCARNATION, Step(4))
    assert reply(machine, SECOND, join(), Joined(5)) == [Send(FIRST, advance)]
    assert (machine.phase, machine.clock) == (Phase.ADVANCING, 5)
    assert reply(machine, FIRST, advance, receipt(4, Status.ADVANCED)) == [Send(FIRST, ask(5))]


def test_a_shard_that_missed_more_than_one_iteration_halts_the_slot() -> None:
    machine = joining()
    reply(machine, FIRST, join(), Joined(4))
    reason = "shards [0] are more than one iteration behind 6 of slot 3"
    assert reply(machine, SECOND, join(), Joined(6)) == [Halt(reason)]
    assert machine.phase is Phase.HALTED


def test_a_granted_slot_waits_for_its_turn() -> None:
    machine = asking()
    assert reply(machine, FIRST, ask(0), Granted(Step(0), tick=9)) == []
    assert (machine.phase, machine.clock) == (Phase.READY, 0)


def test_a_grant_may_lie_ahead_of_what_was_asked_for() -> None:
    assert ready(step=7).clock == 7


def test_the_end_of_the_budget_ends_the_slot() -> None:
    machine = asking()
    assert reply(machine, FIRST, ask(0), Ended()) == [End()]
    assert machine.phase is Phase.ENDED


def test_a_chosen_slot_pulls_what_the_worker_lacks() -> None:
    machine = ready()
    assert machine.handle(Chosen((Version(10), None))) == [Send(FIRST, pull(0, have=10)), Send(SECOND, pull(0))]
    assert machine.phase is Phase.PULLING


def test_with_all_weights_there_the_slot_computes() -> None:
    machine = pulling()
    assert reply(machine, FIRST, pull(0), pulled(0, 10)) == []
    assert reply(machine, SECOND, pull(0), pulled(0, 20)) == [Compute(Step(0), tick=9)]
    assert machine.phase is Phase.COMPUTING


@pytest.mark.parametrize(("local_steps", "pushed"), [(None, 0.25), (LocalSteps(8), 1.0)])
def test_what_evaluations_make_of_the_learning_rate_is_computed_with_and_pushed(
    local_steps: LocalSteps | None, pushed: float
) -> None:
    machine = SlotMachine(SLOT, INCARNATION, replace(RULES, shards=1, local_steps=local_steps))
    machine.handle(Started())
    reply(machine, FIRST, join(), Joined(0))
    reply(machine, FIRST, ask(0), Granted(Step(0), 9, 0.25))
    machine.handle(Chosen((Version(10),)))
    assert reply(machine, FIRST, pull(0, have=10), pulled(0, 10)) == [Compute(Step(0), 9, 0.25)]
    [send] = machine.handle(Computed(True, (4,)))
    assert send == Send(FIRST, replace(push(0, 10), lr_factor=pushed))


def test_a_step_that_closed_on_one_shard_while_pulling_is_not_computed() -> None:
    machine = pulling()
    reply(machine, FIRST, pull(0), pulled(0, 10))
    assert reply(machine, SECOND, pull(0), pulled(2, 22)) == [Send(FIRST, ask(2))]
    assert (machine.phase, machine.clock) == (Phase.ASKING, 2)


@pytest.mark.parametrize("finite", [True, False])
def test_a_gradient_is_pushed_to_every_shard_with_what_it_was_computed_from(finite: bool) -> None:
    machine = computing()
    assert machine.handle(Computed(finite, absent=(4,))) == [
        Send(FIRST, push(0, 10, finite)),
        Send(SECOND, push(0, 20, finite)),
    ]
    assert machine.phase is Phase.PUSHING


def test_an_iteration_is_finished_when_every_shard_has_answered() -> None:
    machine = pushing()
    assert reply(machine, SECOND, push(0, 20), receipt(0)) == []
    late = receipt(0, Status.LATE)
    assert reply(machine, FIRST, push(0, 10), late) == [Finish(Step(0), (late, receipt(0))), Send(FIRST, ask(1))]
    assert machine.clock == 1


@pytest.mark.parametrize("step", [1, 6], ids=["next", "ahead"])
def test_a_following_grant_saves_the_question(step: int) -> None:
    machine = pushing()
    reply(machine, SECOND, push(0, 20), receipt(0))
    last = receipt(0, following=Granted(Step(step), tick=step))
    assert reply(machine, FIRST, push(0, 10), last) == [Finish(Step(0), (last, receipt(0)))]
    assert (machine.phase, machine.clock) == (Phase.READY, step)


def test_a_following_end_ends_the_slot_after_its_receipts() -> None:
    machine = pushing()
    reply(machine, SECOND, push(0, 20), receipt(0))
    last = receipt(0, following=Ended())
    assert reply(machine, FIRST, push(0, 10), last) == [Finish(Step(0), (last, receipt(0))), End()]
    assert machine.phase is Phase.ENDED


def after_a_push(mode: Mode) -> SlotMachine:
    """Both shards have answered with version 1, and the next iteration is granted."""
    machine = SlotMachine(SLOT, INCARNATION, Rules(mode, slots=4, shards=2, steps=None))
    machine.handle(Started())
    for shard in (FIRST, SECOND):
        reply(machine, shard, join(), Joined(0))
    reply(machine, FIRST, ask(0), Granted(Step(0), tick=9))
    machine.handle(Chosen((None, None)))
    for shard in (FIRST, SECOND):
        reply(machine, shard, pull(0), pulled(0, 0))
    machine.handle(Computed(finite=True, absent=(4,), renew=True))
    pushed = replace(push(0, 0), renew=True)
    reply(machine, SECOND, pushed, receipt(0))
    reply(machine, FIRST, pushed, receipt(0, following=Granted(Step(1), tick=10)))
    return machine


@pytest.mark.parametrize("mode", [Sync(), Async()], ids=str)
def test_weights_that_came_with_the_receipts_are_not_pulled_again(mode: Mode) -> None:
    machine = after_a_push(mode)
    assert machine.handle(Chosen((Version(1), Version(1)))) == [Compute(Step(1), tick=10)]
    assert machine.handle(Computed(finite=True, absent=(4,))) == [
        Send(FIRST, push(1, 1, tick=10)),
        Send(SECOND, push(1, 1, tick=10)),
    ]


@pytest.mark.parametrize("mode", [Sync(backups=1), Async(staleness=2)], ids=str)
def test_weights_at_a_receipt_are_pulled_where_others_may_have_gone_on(mode: Mode) -> None:
    machine = after_a_push(mode)
    assert machine.handle(Chosen((Version(1), Version(1)))) == [Send(FIRST, pull(1, 1)), Send(SECOND, pull(1, 1))]


def test_weights_older_than_the_receipt_are_pulled() -> None:
    machine = after_a_push(Sync())
    assert machine.handle(Chosen((Version(1), Version(0)))) == [Send(FIRST, pull(1, 1)), Send(SECOND, pull(1, 0))]


# ------------------------------------------------------------------ what goes wrong

WAITING: list[tuple[Callable[[], SlotMachine], SlotRequest]] = [
    (joining, join()),
    (asking, ask(0)),
    (pulling, pull(0)),
    (pushing, push(0, 10)),
]


@pytest.mark.parametrize(("waiting", "request_"), WAITING, ids=["join", "ask", "pull", "push"])
def test_a_refusal_halts_the_slot_and_the_rest_is_not_waited_for(
    waiting: Callable[[], SlotMachine], request_: SlotRequest
) -> None:
    machine = waiting()
    assert reply(machine, FIRST, request_, Refused("replaced")) == [Halt("replaced")]
    assert machine.phase is Phase.HALTED
    assert reply(machine, SECOND, request_, Refused("replaced")) == []


@pytest.mark.parametrize("old", [join(), ask(0), ask(1), pull(0), push(0, 10)], ids=str)
def test_an_answer_that_nobody_waits_for_changes_nothing(old: SlotRequest) -> None:
    machine = computing()
    assert reply(machine, FIRST, old, Refused("long ago")) == []
    assert machine.phase is Phase.COMPUTING


def test_an_answer_counts_once() -> None:
    machine = pulling()
    for _ in range(2):
        assert reply(machine, FIRST, pull(0), pulled(0, 10)) == []
    assert machine.phase is Phase.PULLING


def test_an_answer_to_an_ask_that_is_neither_yes_nor_no_is_our_bug() -> None:
    with pytest.raises(InternalError, match=r"the lead answered an ask of slot 3 with Done\(\)"):
        reply(asking(), FIRST, ask(0), Done())


@pytest.mark.parametrize(
    ("event", "expected"),
    [(Started(), "new"), (Chosen(()), "ready"), (Computed(True, ()), "computing")],
    ids=["started", "chosen", "computed"],
)
def test_an_event_in_another_phase_is_our_bug(event: Started | Chosen | Computed, expected: str) -> None:
    with pytest.raises(InternalError, match=rf"slot 3 is asking, not {expected}"):
        asking().handle(event)
