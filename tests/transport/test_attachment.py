from dataclasses import replace

import pytest
import torch

from psgd.config import Job
from psgd.core.ids import Slot
from psgd.errors import ResourceError
from psgd.transport.attachment import attach
from psgd.transport.flat import allocate
from psgd.transport.wire_format import JobWire
from tests.jobs import make_job
from tests.worker.scripted import ScriptedConnection

SLOTS = (Slot(1), Slot(3))


def job(wire: str = "float32") -> Job:
    return replace(make_job(shards=2), wire=wire)


def test_every_slot_has_memory_of_its_own_to_send_from() -> None:
    attachment = attach([], job(), SLOTS)
    assert list(attachment.sent) == list(SLOTS)
    first, second = attachment.sent.values()
    first.fill_(1)
    assert not second.any()
    assert first.shape == second.shape == (job().layout.pushed_bytes,)


def test_weights_that_come_as_they_are_land_where_they_are_used() -> None:
    attachment = attach([], job(), SLOTS)
    assert attachment.received is attachment.weights
    assert attachment.weights.shape == (job().layout.bytes,)
    assert not attachment.weights.any()


def test_weights_that_are_written_otherwise_land_beside_those_that_are_used() -> None:
    attachment = attach([], job("bfloat16"), SLOTS)
    assert attachment.weights.shape == (job().layout.bytes,)
    assert attachment.received.numel() == JobWire(job("bfloat16")).pulls[-1].stop < attachment.weights.numel()


@pytest.mark.parametrize(("wire", "expected"), [("float32", 3), ("bfloat16", 3), ("int8", 3)])
def test_what_planes_carry_is_in_memory_that_they_carry_best(wire: str, expected: int) -> None:
    given: list[int] = []

    def allocate_shared(size: int) -> torch.Tensor:
        memory = allocate(size)
        given.append(memory.data_ptr())
        return memory

    attachment = attach([], job(wire), SLOTS, allocate_shared=allocate_shared)
    carried = [*attachment.sent.values(), attachment.received]
    assert sorted(memory.data_ptr() for memory in carried) == sorted(given)
    assert len(given) == expected


def test_weights_that_are_there_are_taken() -> None:
    weights = allocate(job().layout.bytes)
    attachment = attach([], job(), SLOTS, weights=weights)
    assert attachment.weights is attachment.received is weights


def test_too_little_memory_is_heard_of() -> None:
    def short(size: int) -> torch.Tensor:
        raise ResourceError(f"{size} bytes of shared memory are wanted")

    with pytest.raises(ResourceError, match="bytes of shared memory are wanted"):
        attach([], job(), SLOTS, allocate_shared=short)


def test_closing_closes_every_connection() -> None:
    closed: list[int] = []

    class Closing(ScriptedConnection):
        def close(self) -> None:
            closed.append(id(self))

    connections = [Closing(), Closing()]
    attach(connections, job(), SLOTS).close()
    assert closed == [id(connection) for connection in connections]
