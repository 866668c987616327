"""Hypothesis drives whole jobs: it chooses what arrives when, twice or never, who computes, who dies."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from psgd.core.corrections import DelayCompensation, LagRate
from psgd.core.ids import LEAD, Boundary, Shard
from psgd.core.messages import Status
from psgd.core.modes import Async, Rules, Sync
from tests.core.world import World, portrait, size

ANY = st.integers(min_value=0, max_value=10**6)
"""Which of those at hand: taken modulo their number."""
MOST_MESSAGES = 60
"""On their way at once, beyond which nothing is sent twice: what a run needs for its end grows with them."""
SETTINGS = settings(
    max_examples=max(150, settings().max_examples),
    stateful_step_count=40,
)


class Job(RuleBasedStateMachine):
    """What may happen to any job; how it starts and how it must end is told by the modes."""

    world: World

    @rule(times=st.integers(min_value=1, max_value=40))
    def all_is_well_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.world.flow()

    @rule(picks=st.lists(ANY, min_size=1, max_size=30))
    def messages_arrive_in_any_order(self, picks: list[int]) -> None:
        for pick in picks:
            self.world.flow(pick)

    @rule(fates=st.lists(st.tuples(st.sampled_from(["arrives", "arrives again", "is lost"]), ANY), max_size=10))
    def network_is_bad(self, fates: list[tuple[str, int]]) -> None:
        for fate, which in fates:
            if not self.world.bag:
                self.world.flow(which)
            elif fate == "is lost":
                self.world.drop(which % len(self.world.bag))
            else:
                again = fate == "arrives again" and len(self.world.bag) < MOST_MESSAGES
                self.world.deliver(which % len(self.world.bag), again=again)

    @precondition(lambda self: self.world.waiting() and len(self.world.bag) < MOST_MESSAGES)
    @rule(which=ANY)
    def plane_retries(self, which: int) -> None:
        waiting = self.world.waiting()
        self.world.retry(waiting[which % len(waiting)])

    @precondition(lambda self: len(self.world.bag) < MOST_MESSAGES)
    @rule()
    def time_passes(self) -> None:
        self.world.tick()

    @precondition(lambda self: self.world.busy())
    @rule(which=ANY)
    def worker_works(self, which: int) -> None:
        busy = self.world.busy()
        self.world.work(busy[which % len(busy)])

    @precondition(lambda self: self.world.running())
    @rule(which=ANY)
    def worker_dies(self, which: int) -> None:
        running = self.world.running()
        self.world.kill(running[which % len(running)])

    @precondition(lambda self: self.world.dead())
    @rule(which=ANY)
    def worker_is_replaced(self, which: int) -> None:
        dead = self.world.dead()
        self.world.restart(dead[which % len(dead)])

    @precondition(lambda self: self.world.running())
    @rule(which=ANY)
    def worker_becomes_a_zombie(self, which: int) -> None:
        running = self.world.running()
        self.world.restart(running[which % len(running)])

    @rule(which=ANY, age=st.integers(min_value=0, max_value=2))
    def membership_is_announced(self, which: int, age: int) -> None:
        self.world.announce(Shard(which % self.world.rules.shards), age)

    @precondition(lambda self: self.world.judge.settled < self.world.judge.reached)
    @rule(stop=st.booleans())
    def evaluation_is_settled(self, stop: bool) -> None:
        self.world.settle(stop=stop)

    @rule(which=ANY, back=st.integers(min_value=0, max_value=2), keep=st.booleans())
    def evaluator_reads(self, which: int, back: int, keep: bool) -> None:
        boundary = Boundary(max(0, self.world.judge.settled + 1 - back))
        self.world.read(Shard(which % self.world.rules.shards), boundary, keep=keep)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain()
            self.verify()

    def verify(self) -> None:
        raise NotImplementedError


@st.composite
def jobs(draw: st.DrawFn, mode: type[Sync] | type[Async], *, own_loops: bool = False) -> World:
    slots = draw(st.integers(min_value=1, max_value=4))
    if mode is Sync:
        chosen: Sync | Async = Sync(draw(st.integers(min_value=0, max_value=min(2, slots - 1))))
    else:
        chosen = Async(draw(st.sampled_from([None, 0, 1, 3])), draw(st.integers(min_value=1, max_value=slots)))
    corrections = [None] if mode is Sync else [None, LagRate(), DelayCompensation()]
    steps = st.integers(min_value=1, max_value=6)
    rules = Rules(
        chosen,
        slots,
        shards=draw(st.integers(min_value=1, max_value=3)),
        steps=None if own_loops else draw(steps),
        evaluate_every=None if own_loops else draw(st.none() | st.integers(min_value=1, max_value=3)),
        clip_norm=draw(st.sampled_from([None, 2.0])),
        correction=draw(st.sampled_from(corrections)),
    )
    gradients = st.tuples(st.integers(0, slots - 1), st.integers(0, 5))
    nonfinite = draw(st.frozensets(gradients, max_size=2))
    lengths = tuple(draw(st.lists(steps, min_size=slots, max_size=slots))) if own_loops else None
    overflowing = draw(st.frozensets(st.integers(0, 5), max_size=1))
    return World(rules, nonfinite, lengths, overflowing)


class SyncJob(Job):
    @initialize(world=jobs(Sync))
    def starts(self, world: World) -> None:
        self.world = world

    def verify(self) -> None:
        judge, slots = self.world.judge, self.world.rules.slots
        judge.verify_sync()
        figures = [self.world.figures(Shard(k)) for k in range(self.world.rules.shards)]
        assert figures[LEAD].steps == judge.end
        assert figures[LEAD].clocks == (judge.end,) * slots
        assert {(f.version, f.accepted, f.dropped, f.nonfinite) for f in figures} == {
            (judge.shards[LEAD].version, figures[LEAD].accepted, figures[LEAD].dropped, figures[LEAD].nonfinite)
        }
        closed_for_it = [c for c in judge.commits.values() if not c.update]
        if self.world.rules.shards > 1:
            assert figures[LEAD].nonfinite == sum(len(commit.accepted) for commit in closed_for_it)
        assert figures[LEAD].accepted + figures[LEAD].dropped == judge.end * slots
        assert figures[LEAD].accepted == sum(len(taken) for _, taken in judge.shards[LEAD].applied)
        applied = dict(judge.shards[LEAD].applied)
        for step in range(judge.end):
            statuses = {r.status for (_, s), r in judge.shards[LEAD].receipts.items() if s == step}
            assert (Status.ACCEPTED in statuses) == (step in applied)
            assert (Status.NONFINITE in statuses) != (step in applied)
        assert judge.reached == next(b for b in range(99) if judge.boundary_step(b) >= judge.end)


class AsyncJob(Job):
    @initialize(world=jobs(Async))
    def starts(self, world: World) -> None:
        self.world = world

    def verify(self) -> None:
        judge, slots = self.world.judge, self.world.rules.slots
        judge.verify_async(self.world.deaths)
        assert len(judge.grants) == judge.end * slots
        figures = [self.world.figures(Shard(k)) for k in range(self.world.rules.shards)]
        for seen, figure in zip(judge.shards, figures, strict=True):
            statuses = [receipt.status for receipt in seen.receipts.values()]
            assert figure.version == seen.version
            assert figure.accepted == len(seen.applied) == statuses.count(Status.ACCEPTED) - len(seen.gathered)
            assert figure.accepted + figure.dropped == judge.end * slots
            assert figure.nonfinite == statuses.count(Status.NONFINITE)
        assert self.world.deaths or len({figure.version for figure in figures}) == 1
        assert figures[LEAD].steps == judge.end
        assert figures[LEAD].clocks == tuple(judge.finished(slot) for slot in judge.slots)
        staleness = judge.rules.mode.staleness if isinstance(judge.rules.mode, Async) else None
        assert judge.widest <= figures[LEAD].max_clock_gap
        assert staleness is None or figures[LEAD].max_clock_gap <= staleness
        assert judge.reached == next(b for b in range(99) if judge.boundary_step(b) >= judge.end)


class OwnLoopsInRounds(Job):
    @initialize(world=jobs(Sync, own_loops=True))
    def starts(self, world: World) -> None:
        self.world = world

    def verify(self) -> None:
        self.world.judge.verify_sync()


class OwnLoopsOnArrival(Job):
    @initialize(world=jobs(Async, own_loops=True))
    def starts(self, world: World) -> None:
        self.world = world

    def verify(self) -> None:
        self.world.judge.verify_async(self.world.deaths)


def as_test(job: type[Job]) -> type:
    job.TestCase.settings = SETTINGS
    return job.TestCase


TestSyncJob = as_test(SyncJob)
TestAsyncJob = as_test(AsyncJob)
TestOwnLoopsInRounds = as_test(OwnLoopsInRounds)
TestOwnLoopsOnArrival = as_test(OwnLoopsOnArrival)


@pytest.mark.parametrize("clip_norm", [None, 2.0])
@pytest.mark.parametrize(
    "mode", [Sync(), Sync(backups=1), Async(), Async(staleness=1), Async(gather=2), Async(1, gather=3)], ids=str
)
def test_a_shard_remembers_no_more_after_many_steps_than_after_few(mode: Sync | Async, clip_norm: float | None) -> None:
    correction = DelayCompensation() if isinstance(mode, Async) else None

    def remembered(steps: int) -> list[int]:
        world = World(
            Rules(mode, 3, shards=2, steps=steps, evaluate_every=2, clip_norm=clip_norm, correction=correction)
        )
        world.drain()
        return [size(portrait(protocol)) for protocol in world.protocols]

    assert remembered(100) == remembered(10)


@pytest.mark.parametrize("clip_norm", [None, 2.0])
@pytest.mark.parametrize(
    ("mode", "updates"),
    [(Sync(), 4), (Sync(backups=1), 4), (Async(), 12), (Async(0), 12), (Async(gather=3), 4), (Async(0, gather=2), 6)],
    ids=str,
)
def test_an_undisturbed_job_ends_by_itself(mode: Sync | Async, updates: int, clip_norm: float | None) -> None:
    world = World(Rules(mode, slots=3, shards=2, steps=4, clip_norm=clip_norm))
    while world.flow():
        pass
    assert not world.running()
    assert {seen.version for seen in world.judge.shards} == {updates}
