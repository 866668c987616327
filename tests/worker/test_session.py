from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest
import torch
from torch import Tensor, nn

from psgd.config import OwnLoop
from psgd.core.ids import Incarnation, Slot
from psgd.core.messages import Done, Leave, Refused, Reply, Request
from psgd.core.modes import Async, Sync
from psgd.data.batches import draw_batch
from psgd.data.sampler import BatchPlan
from psgd.errors import ConfigurationError, InternalError, LostError, RunEnded
from psgd.runlog import Iteration, Reported
from psgd.transport.attachment import attach
from psgd.transport.base import Deliver, PushId, Upload
from psgd.transport.upload import LateUpload
from psgd.worker.optimizer import DistributedOptimizer
from psgd.worker.session import Session, batches, current, report, run_own_loop, running
from tests.worker.own_loops import own_job, points, shards_of, tiny

DATA = points()


def idle() -> None:
    """A loop that does nothing."""


class Lead:
    """A connection that knows one answer, and what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.requests: list[Request] = []
        self._reply = reply

    def submit(
        self, request: Request, deliver: Deliver, payload: memoryview | None = None, into: Sequence[memoryview] = ()
    ) -> None:
        self.requests.append(request)
        deliver(self._reply, None)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        return LateUpload(self, payload)

    def close(self) -> None:
        """Holds nothing."""


def lone_session(
    loop: Callable[..., None] = idle,
    *,
    slot: int = 0,
    lead: Lead | None = None,
    config: dict[str, object] | None = None,
) -> tuple[Session, list[Iteration | Reported]]:
    """A session without shards, and what it told."""
    told: list[Iteration | Reported] = []
    job = replace(own_job(loop, slots=2), own_loop=OwnLoop(loop, config))
    attachment = attach([lead or Lead(Done())], job, [Slot(slot)])
    session = Session(job, slot, Slot(slot), Incarnation(4), attachment, told.append)
    return session, told


# ------------------------------------------------------------------ the current session


@pytest.mark.parametrize("use", [current, report, lambda: batches(DATA)])
def test_outside_a_training_loop_there_is_no_session(use: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no training loop here: .* Trainer\(train_loop=\.\.\.\)"):
        use()


def test_the_session_is_current_only_while_its_loop_runs() -> None:
    session, _ = lone_session()
    with running(session):
        assert current() is session
    with pytest.raises(ConfigurationError):
        current()


def test_a_loop_that_fails_leaves_no_session_behind() -> None:
    session, _ = lone_session()
    with pytest.raises(ValueError, match="mine"), running(session):
        raise ValueError("mine")
    with pytest.raises(ConfigurationError):
        current()


def test_two_threads_have_a_session_each() -> None:
    both = Barrier(2)

    def slot_of(session: Session) -> int:
        with running(session):
            both.wait(timeout=10)
            return current().slot

    with ThreadPoolExecutor(2) as threads:
        slots = list(threads.map(slot_of, [lone_session(slot=slot)[0] for slot in (0, 1)]))
    assert slots == [0, 1]


# ------------------------------------------------------------------ report


def test_reports_go_out_at_once_and_in_order() -> None:
    session, told = lone_session(slot=1)
    with running(session):
        report({"loss": 0.5}, accuracy=torch.tensor(0.25))
        assert len(told) == 1  # no other slot has even started
        report(loss=2)
    reports = [record for record in told if isinstance(record, Reported)]
    assert [(record.slot, record.metrics) for record in reports] == [
        (1, {"loss": 0.5, "accuracy": 0.25}),
        (1, {"loss": 2.0}),
    ]
    assert reports[0].time_s <= reports[1].time_s


@pytest.mark.parametrize(
    ("value", "named"),
    [(None, "loss=None (NoneType)"), ([1.0], "loss=[1.0] (list)"), (torch.ones(2), "loss=tensor([1., 1.]) (Tensor)")],
)
def test_a_report_of_something_else_than_a_number_is_refused(value: object, named: str) -> None:
    session, told = lone_session()
    with running(session), pytest.raises(ConfigurationError) as caught:
        report(loss=value)  # type: ignore[arg-type]
    assert str(caught.value) == f"report takes a number for each name, got {named}"
    assert told == []


# ------------------------------------------------------------------ run_own_loop


def test_a_loop_without_arguments_is_called_with_nothing() -> None:
    calls = []
    session, _ = lone_session(lambda: calls.append("called"), config={"width": 3})
    run_own_loop(session)
    assert calls == ["called"]


@pytest.mark.parametrize("config", [{"width": 3}, None])
def test_a_loop_that_takes_an_argument_gets_the_config(config: dict[str, object] | None) -> None:
    calls: list[object] = []
    session, _ = lone_session(lambda given: calls.append(given), config=config)
    run_own_loop(session)
    assert calls == [config or {}]


def test_the_lead_is_told_when_the_loop_has_ended() -> None:
    lead = Lead(Done())
    session, _ = lone_session(slot=1, lead=lead)
    run_own_loop(session)
    assert lead.requests == [Leave(Slot(1), Incarnation(4), finished=0)]


def test_the_end_of_the_run_is_a_way_to_end() -> None:
    def loop() -> None:
        raise RunEnded("over")

    lead = Lead(Done())
    run_own_loop(lone_session(loop, lead=lead)[0])
    assert lead.requests == [Leave(Slot(0), Incarnation(4), finished=0)]


def test_a_loop_that_fails_does_not_leave_so_that_its_successor_can_go_on() -> None:
    def loop() -> None:
        raise ValueError("mine")

    lead = Lead(Done())
    with pytest.raises(ValueError, match="mine"):
        run_own_loop(lone_session(loop, lead=lead)[0])
    assert lead.requests == []


def test_a_lead_that_does_not_let_a_slot_leave_is_an_error() -> None:
    session, _ = lone_session(lead=Lead(Refused("replaced")))
    with pytest.raises(LostError, match=r"the lead did not let slot 0 leave: .*replaced"):
        run_own_loop(session)


def test_a_job_without_an_own_loop_is_no_job_of_a_session() -> None:
    session, _ = lone_session()
    session.job = replace(session.job, own_loop=None)
    with pytest.raises(InternalError):
        run_own_loop(session)


def test_the_lead_hears_how_many_iterations_a_loop_has_finished() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        optimizer.step()
        optimizer.step()

    with shards_of(own_job(loop, mode=Async(), slots=2)) as run:
        run.loops(0)
        assert run.figures.clocks == (2, 0)


def test_the_end_of_a_loop_sets_no_finished_iteration_free() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        while True:
            optimizer.step()

    with shards_of(own_job(loop, mode=Async(), slots=2, steps=3)) as run:
        run.loops(0)  # uses up the whole budget
        run.loops(1)
        assert run.figures.clocks == (6, 0)


# ------------------------------------------------------------------ batches


def trained(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """Leave the gradient in the model."""
    inputs, targets = batch
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()


def expected(step: int, slot: int, slots: int, batch_size: int = 4) -> Tensor:
    """The inputs that the built-in loop draws."""
    inputs: Tensor = draw_batch(DATA, BatchPlan(len(DATA), slots, batch_size, seed=5), step, slot)[0]
    return inputs


def test_a_loop_draws_the_batches_of_its_slot_until_the_run_ends() -> None:
    drawn: dict[int, list[Tensor]] = {0: [], 1: []}

    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        for batch in batches(DATA):
            drawn[current().slot].append(batch[0])
            trained(model, batch)
            optimizer.step()

    with shards_of(own_job(loop, slots=2, steps=5)) as run:
        run.loops(0, 1)
    for slot in (0, 1):
        assert len(drawn[slot]) == 5
        for step, inputs in enumerate(drawn[slot]):
            assert torch.equal(inputs, expected(step, slot, slots=2))


def test_a_loop_may_stop_drawing_before_the_run_ends() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        for _ in batches(DATA, steps=3):
            optimizer.step()

    with shards_of(own_job(loop, steps=None)) as run:
        run.loops(0)
        assert [record.step for record in run.iterations] == [0, 1, 2]


def test_batches_of_another_size_are_drawn_and_recorded_as_such() -> None:
    sizes = []

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        for inputs, _ in batches(DATA, batch_size=8):
            sizes.append(len(inputs))
            assert torch.equal(inputs, expected(optimizer.clock, slot=0, slots=1, batch_size=8))
            optimizer.step()

    with shards_of(own_job(loop)) as run:
        run.loops(0)
        assert sizes == [8, 8, 8]
        assert [record.samples for record in run.iterations] == [8, 8, 8]


def test_the_same_batch_is_not_drawn_twice() -> None:
    def loop() -> None:
        DistributedOptimizer(tiny().named_parameters())
        drawn = batches(DATA)
        next(drawn)
        next(drawn)

    with (
        shards_of(own_job(loop)) as run,
        pytest.raises(ConfigurationError, match=r"batch of iteration 0 was drawn already: call .* step\(\) before"),
    ):
        run.loops(0)


def test_batches_need_an_optimizer_that_knows_the_step() -> None:
    def loop() -> None:
        next(batches(DATA))

    with (
        shards_of(own_job(loop)) as run,
        pytest.raises(ConfigurationError, match="no DistributedOptimizer yet: make it before the first batch"),
    ):
        run.loops(0)


def test_batches_may_be_named_before_the_optimizer_is_made() -> None:
    def loop() -> None:
        drawn = batches(DATA)
        DistributedOptimizer(tiny().named_parameters())
        next(drawn)

    with shards_of(own_job(loop)) as run:
        run.loops(0)


def test_a_data_set_smaller_than_a_step_is_refused() -> None:
    session, _ = lone_session()
    with running(session), pytest.raises(ConfigurationError, match=r"got 2 \* 20 = 40"):
        batches(DATA, batch_size=20)


@pytest.mark.parametrize("mode", [Sync(), Async()])
def test_a_new_incarnation_goes_on_where_the_old_one_was(mode: Sync | Async) -> None:
    lives: list[list[Tensor]] = []

    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        lives.append([])
        for batch in batches(DATA):
            lives[-1].append(batch[0])
            trained(model, batch)
            if len(lives) == 1 and optimizer.clock == 2:
                raise ValueError("the machine burns")
            optimizer.step()

    def undisturbed() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        for batch in batches(DATA):
            trained(model, batch)
            optimizer.step()

    with shards_of(own_job(loop, mode=mode, steps=5)) as run:
        with pytest.raises(ValueError, match="burns"):
            run.loops(0)
        run.loops(0, incarnation=1)
        weights = run.weights
        assert [record.step for record in run.iterations] == [0, 1, 2, 3, 4]
    assert [len(life) for life in lives] == [3, 3]
    for step, inputs in enumerate(lives[0][:2] + lives[1]):
        assert torch.equal(inputs, expected(step, slot=0, slots=1))
    with shards_of(own_job(undisturbed, mode=mode, steps=5)) as run:
        run.loops(0)
        assert all(torch.equal(weights[name], tensor) for name, tensor in run.weights.items())


def test_a_slot_that_was_left_behind_draws_the_batch_of_the_open_step() -> None:
    first_drawn, three_closed, next_drawn = Event(), Event(), Event()
    drawn = []

    def fast() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        assert first_drawn.wait(timeout=10)
        for _ in range(3):
            optimizer.step()
        three_closed.set()
        assert next_drawn.wait(timeout=10)

    def slow() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        steps = batches(DATA)
        drawn.append(next(steps)[0])
        first_drawn.set()
        assert three_closed.wait(timeout=10)
        optimizer.step()
        drawn.append(next(steps)[0])
        next_drawn.set()

    def loop() -> None:
        (slow if current().slot else fast)()

    with shards_of(own_job(loop, mode=Sync(backups=1), slots=2, steps=10)) as run:
        run.loops(0, 1)
        assert [record.status for record in run.iterations if record.slot == 1] == ["late"]
    assert torch.equal(drawn[0], expected(0, slot=1, slots=2))
    assert torch.equal(drawn[1], expected(3, slot=1, slots=2))
