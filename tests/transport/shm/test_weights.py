"""What a worker reads where it is, behind real doorbells."""

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from psgd.core.ids import Step, Version
from psgd.core.layout import Layout, Part, Role, TensorSpec, partition
from psgd.core.messages import Inspect, Pulled, Refused
from psgd.transport.flat import view_bytes
from psgd.transport.shm import Overlay, Segment, SegmentPool, ShmConnection, ShmServer
from psgd.transport.shm.segment import PAGE
from psgd.transport.state import both_spans
from tests.transport.scripted import Delivered, ScriptedEndpoint, answers, ask, pull
from tests.transport.shm.footprint import footprint, visits_end
from tests.transport.shm.visitor import KEY


def layout_with(pushed: int, frozen: int) -> Layout:
    """Tensors of so many bytes."""
    return Layout(
        [
            TensorSpec("trained", (pushed // 4,), "float32", Role.PARAMETER),
            TensorSpec("fixed", (frozen // 4,), "float32", Role.FROZEN),
        ]
    )


class StandingShard:
    """A scripted shard with its weights in a segment, as a job's shard has them."""

    def __init__(self, part: Part) -> None:
        self.offset = part.pushed.start % PAGE
        self.segment = Segment.create(self.offset + part.bytes)
        self.memory = self.segment.memory[self.offset :]
        self.segment.seal_against_writers()
        self.endpoint = ScriptedEndpoint(bytes(part.pushed.bytes), bytes(part.frozen.bytes))
        self.endpoint.whole = view_bytes(self.memory)  # type: ignore[assignment]
        self.server = ShmServer(self.endpoint, key=KEY, slots=4, weights=(self.segment, self.offset))


class Setup:
    """A worker's overlay over the weights of all shards."""

    def __init__(self, layout: Layout, shards: int) -> None:
        self.layout = layout
        self.parts = partition(layout, shards)
        self.shards = [StandingShard(part) for part in self.parts]
        self.pool = SegmentPool()
        self.connections = [
            ShmConnection(shard.server.name, shard=k, key=KEY, pool=self.pool) for k, shard in enumerate(self.shards)
        ]
        self.overlay = Overlay(layout.bytes)
        for connection, part in zip(self.connections, self.parts, strict=True):
            connection.lay_weights(self.overlay, part.pushed.start)

    def update(self, seed: int) -> Tensor:
        """Other weights on every shard; the flat space as it is to be seen."""
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(self.layout.bytes, dtype=torch.uint8)
        for shard, part in zip(self.shards, self.parts, strict=True):
            shard.memory.copy_(torch.randint(256, (part.bytes,), generator=generator).to(torch.uint8))
            flat[part.pushed.start : part.pushed.stop] = shard.memory[: part.pushed.bytes]
            flat[part.frozen.start : part.frozen.stop] = shard.memory[part.pushed.bytes :]
        return flat

    def pull(self, *, whole: bool) -> None:
        for connection, part in zip(self.connections, self.parts, strict=True):
            into = both_spans(self.overlay.memory, part)
            delivered = Delivered()
            connection.submit(pull(whole=whole), delivered, into=into if whole else into[:1])
            assert delivered.wait() == (answers(pull()), None)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for shard in self.shards:
            shard.server.close()
        gc.collect()  # a scripted endpoint remembers what arrived, which remembers whom to answer


@pytest.fixture
def setups() -> Iterator[list[Setup]]:
    made: list[Setup] = []
    yield made
    for each in made:
        each.close()


def private_pages(memory: Tensor) -> int:
    """Pages of the mapping that are this process' own: written to, or copied into."""
    start, pages = memory.data_ptr() // PAGE, -(-memory.numel() // PAGE)
    with open("/proc/self/pagemap", "rb") as entries:
        entries.seek(8 * start)
        bits = torch.frombuffer(bytearray(entries.read(8 * pages)), dtype=torch.int64)
    present, shared = bits < 0, (bits >> 61) & 1 == 1
    return int((present & ~shared).sum())


SIZES = [(64 * 256, 10 * 256), (5 * PAGE + 256, 0), (3 * 256, 256), (16 * PAGE, 2 * PAGE), (PAGE, 256), (256, 0)]


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize(("pushed", "frozen"), SIZES)
def test_a_pull_into_the_overlay_shows_the_shards_weights(
    setups: list[Setup], pushed: int, frozen: int, shards: int
) -> None:
    setup = Setup(layout_with(pushed, frozen), shards)
    setups.append(setup)
    expected = setup.update(1)
    setup.pull(whole=True)
    assert torch.equal(setup.overlay.memory, expected)
    trained = setup.layout.pushed_bytes
    for seed in (2, 3):
        expected = setup.update(seed)
        setup.pull(whole=False)
        assert torch.equal(setup.overlay.memory[:trained], expected[:trained])


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize(("pushed", "frozen"), SIZES)
def test_a_pull_copies_only_broken_pages_and_what_is_frozen(
    setups: list[Setup], pushed: int, frozen: int, shards: int
) -> None:
    setup = Setup(layout_with(pushed, frozen), shards)
    setups.append(setup)
    setup.update(1)
    assert not private_pages(setup.overlay.memory)
    before = footprint()
    setup.pull(whole=True)
    setup.pull(whole=False)
    whole = set()
    for part in setup.parts:
        whole |= set(range(-(-part.pushed.start // PAGE), part.pushed.stop // PAGE))
    touched = {
        at // PAGE
        for part in setup.parts
        for span in (part.pushed, part.frozen)
        for at in range(span.start, span.stop, 256)
    }
    assert private_pages(setup.overlay.memory) == len(touched - whole)
    assert footprint().segments == before.segments  # no memory was lent


def test_weights_change_under_the_worker_without_a_pull_where_whole_pages_lie(setups: list[Setup]) -> None:
    """So a pull in a round brings no bytes: whoever computes does so before the next update."""
    setup = Setup(layout_with(4 * PAGE, 0), 1)
    setups.append(setup)
    setup.pull(whole=True)
    expected = setup.update(5)
    assert torch.equal(setup.overlay.memory, expected)


def test_a_pull_into_another_place_is_a_copy(setups: list[Setup]) -> None:
    setup = Setup(layout_with(2 * PAGE, 256), 1)
    setups.append(setup)
    expected = setup.update(6)
    elsewhere = torch.zeros(setup.layout.bytes, dtype=torch.uint8)
    delivered = Delivered()
    setup.connections[0].submit(pull(whole=True), delivered, into=both_spans(elsewhere, setup.parts[0]))
    assert delivered.wait() == (answers(pull()), None)
    setup.update(7)
    assert torch.equal(elsewhere, expected)


def test_a_pull_of_what_is_there_already_copies_nothing(setups: list[Setup]) -> None:
    setup = Setup(layout_with(3 * 256, 0), 1)  # a broken page: it would be copied
    setups.append(setup)
    setup.update(8)
    setup.shards[0].endpoint.answer = lambda _: None
    delivered = Delivered()
    setup.connections[0].submit(pull(), delivered, into=both_spans(setup.overlay.memory, setup.parts[0])[:1])
    unchanged = Pulled(Version(5), Step(0), unchanged=True)
    setup.shards[0].endpoint.next_arrival().deliver(unchanged, None)
    assert delivered.wait() == (unchanged, None)
    assert not setup.overlay.memory.any()


def test_where_no_weights_are_shown_nothing_is_laid(setups: list[Setup]) -> None:
    server = ShmServer(ScriptedEndpoint(bytes(PAGE)), key=KEY, slots=1)
    connection = ShmConnection(server.name, shard=0, key=KEY, pool=SegmentPool())
    overlay = Overlay(PAGE)
    connection.lay_weights(overlay, 0)
    overlay.memory.fill_(1)
    assert ask(connection, Inspect())[0] == answers(Inspect())
    connection.close()
    server.close()


def test_a_connection_that_has_ended_lays_nothing(setups: list[Setup]) -> None:
    setup = Setup(layout_with(2 * PAGE, 0), 1)
    setups.append(setup)
    setup.update(1)
    setup.connections[0].close()
    overlay = Overlay(2 * PAGE)
    setup.connections[0].lay_weights(overlay, 0)
    assert not overlay.memory.any()
    reply, _ = ask(setup.connections[0], pull(), into=bytearray(2 * PAGE))
    assert isinstance(reply, Refused)


def test_weights_stay_readable_when_everybody_has_gone_and_leave_with_the_overlay() -> None:
    gc.collect()  # what tests before this one have left to be collected
    before = footprint()
    setup = Setup(layout_with(2 * PAGE, 0), 2)
    expected = setup.update(3)
    setup.pull(whole=True)
    setup.close()
    visits_end()
    memory = setup.overlay.memory
    del setup
    gc.collect()
    assert torch.equal(memory, expected)
    assert footprint().mappings > before.mappings
    del memory
    assert footprint() == before
