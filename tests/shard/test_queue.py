import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

import pytest
import torch

from psgd.config import NamedTensors, OptimizerFactory
from psgd.core.ids import LEAD, Boundary, Incarnation, Shard, Slot, Step, Version
from psgd.core.layout import Layout, Role, Span, TensorSpec, partition
from psgd.core.messages import Held, Inspect, Load, Loaded, PeerMessage, Push, Read, Receipt, Refused, Reply, Request
from psgd.core.modes import Async, Rules, Sync
from psgd.shard.queue import ThreadedQueue
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.transport.base import PushId, Sizes
from psgd.transport.flat import allocate
from psgd.transport.wire_format import WireFormat

LAYOUT = Layout([TensorSpec("weight", (64,), "float32", Role.PARAMETER)])
WAIT_S = 30.0
PLAIN: OptimizerFactory = partial(torch.optim.SGD, lr=1.0)


class Peers:
    """Wakes whoever waits for the second message."""

    def __init__(self) -> None:
        self.told: list[PeerMessage] = []
        self.told_twice = threading.Event()

    def tell(self, shard: int, message: PeerMessage) -> None:
        self.told.append(message)
        if len(self.told) == 2:
            self.told_twice.set()

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def running(
    rules: Rules, optimizer: OptimizerFactory = PLAIN, shard: Shard = LEAD, clock: Callable[[], float] = lambda: 0.0
) -> Iterator[tuple[ThreadedQueue, Peers]]:
    peers = Peers()
    part = partition(LAYOUT, 1)[0]
    state = ShardState(LAYOUT, [part], optimizer, None, whole=False, memory=allocate(part.bytes))
    wire = WireFormat(LAYOUT, part, "float32")
    queue = ThreadedQueue(ParameterShard(rules, shard, state, wire, peers, lambda boundary, step: None, clock))
    try:
        yield queue, peers
    finally:
        queue.close()


def ask(queue: ThreadedQueue, request: Request, payload: bytes = b"") -> "Future[Reply]":
    future: Future[Reply] = Future()
    queue.submit(request, lambda reply, _: future.set_result(reply), memoryview(bytearray(payload)))
    return future


def push(slot: int, step: int) -> Push:
    return Push(Slot(slot), Incarnation(0), Step(step), step, Version(0), finite=True)


class Failing(torch.optim.SGD):
    """A user's optimizer with a fault."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        raise ZeroDivisionError("a user's fault")


def test_requests_of_many_threads_are_applied_one_after_another() -> None:
    slots, steps = 4, 25
    with running(Rules(Async(), slots, 1, steps)) as (queue, _):
        assert ask(queue, Load(), bytes(256)).result(WAIT_S) == Loaded()

        def train(slot: int) -> None:
            for step in range(steps):
                ask(queue, push(slot, step), torch.ones(64).numpy().tobytes()).result(WAIT_S)

        threads = [threading.Thread(target=train, args=(slot,)) for slot in range(slots)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures = ask(queue, Inspect()).result(WAIT_S)
        assert queue.sizes == Sizes(256, 256, 256, 256)
    assert getattr(figures, "version") == getattr(figures, "accepted") == slots * steps  # noqa: B009 (a union)
    assert queue.failure.result(WAIT_S) is None


def test_an_optimizer_that_raises_breaks_the_shard_for_good() -> None:
    with running(Rules(Async(), 1, 1, 5), partial(Failing, lr=1.0)) as (queue, _):
        ask(queue, Load(), bytes(256)).result(WAIT_S)
        expected = Refused('the shard failed: ZeroDivisionError("a user\'s fault")')
        assert ask(queue, push(0, 0), bytes(256)).result(WAIT_S) == expected
        assert isinstance(queue.failure.exception(WAIT_S), ZeroDivisionError)
        assert ask(queue, Inspect()).result(WAIT_S) == expected
    assert isinstance(queue.failure.exception(WAIT_S), ZeroDivisionError)  # close() does not cover it up


def test_an_optimizer_that_can_not_be_made_breaks_the_shard() -> None:
    def broken(named: NamedTensors) -> torch.optim.Optimizer:
        raise ValueError("no such weights")

    with running(Rules(Async(), 1, 1, 5), broken) as (queue, _):
        reply = ask(queue, Load(), bytes(256)).result(WAIT_S)
        assert reply == Refused("the shard failed: ValueError('no such weights')")
        assert isinstance(queue.failure.exception(WAIT_S), ValueError)


def test_close_finishes_what_is_queued() -> None:
    with running(Rules(Async(), 1, 1, 100)) as (queue, _):
        ask(queue, Load(), bytes(256))
        receipts = [ask(queue, push(0, step), bytes(256)) for step in range(100)]
    assert [receipt.result(0).__class__ for receipt in receipts] == [Receipt] * 100


@pytest.mark.parametrize("busy", [False, True])
def test_time_passes_for_the_shard_with_and_without_load(busy: bool) -> None:
    ticks = iter(range(10**9))
    rules = Rules(Sync(), slots=2, shards=2, steps=5)
    with running(rules, shard=Shard(1), clock=lambda: float(next(ticks))) as (queue, peers):
        ask(queue, Load(), bytes(256)).result(WAIT_S)
        room = threading.Semaphore(100)
        ask(queue, push(0, 0), bytes(256))  # held, and told to the lead, who never answers
        while busy and not peers.told_twice.is_set():  # the queue is never empty
            assert room.acquire(timeout=WAIT_S)
            queue.submit(Inspect(), lambda reply, payload: room.release())
        assert peers.told_twice.wait(WAIT_S)
    assert peers.told[:2] == [Held(Shard(1), Slot(0), Step(0), finite=True)] * 2


def test_what_is_known_of_a_push_comes_before_the_push() -> None:
    with running(Rules(Sync(), 2, 1, 5)) as (queue, _):
        ask(queue, Load(), bytes(256)).result(WAIT_S)
        memory = [bytearray(torch.ones(64).numpy().tobytes()) for _ in range(2)]
        for slot in range(2):
            announced = PushId(Slot(slot), Incarnation(0), Step(0))
            queue.prepare(announced, memoryview(memory[slot]), Span(0, 128))
        memory[0][:128] = memory[1][:128] = bytes(128)  # averaged already
        replies: SimpleQueue[Reply] = SimpleQueue()
        for slot in range(2):
            queue.submit(push(slot, 0), lambda reply, _: replies.put(reply), memoryview(memory[slot]))
        assert [type(replies.get(timeout=WAIT_S)) for _ in range(2)] == [Receipt, Receipt]
        snapshot: Future[bytes] = Future()
        queue.submit(Read(Boundary(0)), lambda _, payload: snapshot.set_result(bytes(payload or b"")))
        weights = torch.frombuffer(bytearray(snapshot.result(WAIT_S)), dtype=torch.float32)
    assert weights.tolist() == [-1.0] * 64


def test_a_shard_that_has_failed_hears_nothing_more_of_pushes_to_come() -> None:
    with running(Rules(Sync(), 1, 1, 5), partial(Failing, lr=1.0)) as (queue, _):
        ask(queue, Load(), bytes(256)).result(WAIT_S)
        ask(queue, push(0, 0), bytes(256)).result(WAIT_S)
        queue.prepare(PushId(Slot(0), Incarnation(0), Step(1)), memoryview(bytearray(256)), Span(0, 256))
        assert isinstance(ask(queue, Inspect()).result(WAIT_S), Refused)


def test_a_shard_that_can_not_prepare_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ShardState, "prepare", broken)
    with running(Rules(Sync(), 1, 1, 5)) as (queue, _):
        ask(queue, Load(), bytes(256)).result(WAIT_S)
        queue.prepare(PushId(Slot(0), Incarnation(0), Step(0)), memoryview(bytearray(256)), Span(0, 256))
        assert ask(queue, Inspect()).result(WAIT_S) == Refused("the shard failed: MemoryError('no room')")
        assert isinstance(queue.failure.exception(WAIT_S), MemoryError)
