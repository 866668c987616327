import gc
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from psgd.config import Job
from psgd.core.ids import Slot
from psgd.core.layout import Layout
from psgd.transport import pinned
from psgd.transport.attachment import attach
from psgd.transport.flat import allocate
from psgd.transport.pinned import allocate_pinned, allocator, pin
from psgd.transport.planes import ShardDoors, reach
from psgd.transport.shm import Segment, SegmentPool, ShmServer
from psgd.transport.shm.segment import PAGE
from psgd.transport.wire_format import JobWire
from psgd.worker import outgoing
from psgd.worker.gradient import SlotGradient
from psgd.worker.outgoing import Outgoing
from tests.jobs import make_job
from tests.transport.scripted import ScriptedEndpoint, pull
from tests.transport.shm.visitor import KEY, Visitor, region, submit


class Runtime:
    """CUDA's, as torch shows it; notes what is locked.

    Args:
        outcome: of every registration.
    """

    def __init__(self, outcome: int = 0) -> None:
        self.outcome = outcome
        self.locked: dict[int, int] = {}
        self.calls: list[str] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802  # CUDA's names
        assert flags == 0
        self.calls.append("register")
        if self.outcome == 0:
            self.locked[address] = size
        return self.outcome

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.calls.append("unregister")
        return 0 if self.locked.pop(address, None) is not None else 713

    def cudaGetErrorString(self, outcome: int) -> str:  # noqa: N802
        return f"error {outcome}"


class ReadingRuntime(Runtime):
    """One of a newer torch."""

    def cudaGetLastError(self) -> int:  # noqa: N802
        self.calls.append("read the error")
        return self.outcome


def use(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: runtime.calls.append("wait"))


def test_memory_is_locked_until_the_last_view_of_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    use(runtime, monkeypatch)
    segment = Segment.create(3 * PAGE + 5)
    segment.pin()
    assert runtime.locked == {segment.address: 3 * PAGE + 5}
    memory = segment.memory[PAGE:]
    del segment
    gc.collect()
    assert runtime.calls == ["register"]
    memory.fill_(1)
    del memory
    gc.collect()
    assert runtime.locked == {}
    assert runtime.calls == ["register", "wait", "unregister"]  # no copy may be under way then


def test_locks_go_before_the_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped: list[bool] = []

    class Looking(Runtime):
        def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
            with open("/proc/self/maps") as maps:
                mapped.append(any(line.startswith(f"{address:x}-") for line in maps))
            return super().cudaHostUnregister(address)

    use(Looking(), monkeypatch)
    segment = Segment.create(PAGE)
    segment.pin()
    del segment
    gc.collect()
    assert mapped == [True]


def test_what_cuda_refuses_is_said_once_and_its_error_is_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = ReadingRuntime(outcome=801)
    use(runtime, monkeypatch)
    with caplog.at_level(logging.WARNING):
        memory = np.zeros(PAGE, np.uint8)
        assert not pin(memory)
        del memory
    gc.collect()
    assert runtime.calls == ["register", "read the error"]  # and nothing is unregistered
    assert caplog.messages == [
        f"{PAGE} bytes of memory are not page-locked, so that copies to and from the GPU are slower: "
        "CUDA says error 801"
    ]


def test_an_older_torch_reads_the_error_with_its_next_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []

    def zeros(size: int, device: str) -> None:
        launched.append((size, device))
        raise RuntimeError("CUDA error: operation not supported")

    use(Runtime(outcome=801), monkeypatch)
    monkeypatch.setattr(torch, "zeros", zeros)
    assert not pin(np.zeros(PAGE, np.uint8))
    assert launched == [(1, "cuda")]


def test_nothing_is_asked_about_no_bytes_nor_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    use(runtime, monkeypatch)
    assert not pin(np.zeros(0, np.uint8))  # CUDA takes that for an error
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not pin(np.zeros(PAGE, np.uint8))
    assert runtime.calls == []


def test_a_pool_locks_its_segments_if_they_are_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    use(runtime, monkeypatch)
    SegmentPool().allocate(PAGE)
    assert runtime.calls == []
    pool = SegmentPool(for_gpu=True)
    memory = pool.allocate(PAGE)
    assert runtime.locked == {memory.data_ptr(): PAGE}
    del pool, memory
    gc.collect()
    assert runtime.locked == {}


def test_memory_for_a_gpu_is_plain_where_cuda_has_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    zeros = torch.zeros

    def refuse(size: int, **options: object) -> torch.Tensor:
        if options.pop("pin_memory", False):
            raise RuntimeError("CUDA error: out of memory\nand much more")
        return zeros(size, dtype=torch.uint8)

    monkeypatch.setattr(torch, "zeros", refuse)
    memory = allocate_pinned(5)
    assert (memory.tolist(), memory.dtype) == ([0] * 5, torch.uint8)
    assert caplog.messages == [
        "5 bytes of memory are not page-locked, so that copies are slower: CUDA error: out of memory"
    ]


def test_only_what_a_gpu_copies_is_to_be_locked() -> None:
    assert allocator(for_gpu=True) is allocate_pinned
    assert allocator(for_gpu=False) is allocate


# ------------------------------------------------------------------ what is locked in a job

LAID_OUT = make_job(shards=2)
ON_GPU = replace(LAID_OUT, training=replace(LAID_OUT.training, use_gpu=True))
UPDATED_ON_GPU = replace(LAID_OUT, shard_device="cuda")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    runtime = Runtime()
    use(runtime, monkeypatch)
    yield runtime
    gc.collect()
    assert runtime.locked == {}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was wanted from torch's own page-locked memory."""
    sizes: list[int] = []

    def allocate_noted(size: int) -> torch.Tensor:
        sizes.append(size)
        return allocate(size)

    monkeypatch.setattr(pinned, "allocate_pinned", allocate_noted)
    return sizes


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_a_worker_on_a_gpu_copies_only_to_and_from_locked_memory(wire: str, asked: list[int]) -> None:
    attachment = attach([], replace(ON_GPU, wire=wire), [Slot(0)])
    layout, sizes = LAID_OUT.layout, [attachment.weights.numel()]
    Outgoing(layout, LAID_OUT.parts(), attachment.wire, attachment.sent[Slot(0)], torch.device("cpu"))
    assert {*sizes} <= {*asked}  # the weights come from there
    attach([], replace(LAID_OUT, wire=wire), [Slot(0)])
    assert len(asked) == len({"float32": "ab", "int8": "ab", "bfloat16": "abc"}[wire])


def test_a_gradient_that_is_encoded_is_gathered_in_locked_memory(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient_on(device: torch.device, memory: torch.Tensor, layout: Layout) -> SlotGradient:
        return SlotGradient(memory, layout)

    monkeypatch.setattr(outgoing, "gradient_on", gradient_on)
    for wire, gathered in (("float32", []), ("int8", [LAID_OUT.layout.pushed_bytes])):
        job_wire = JobWire(replace(LAID_OUT, wire=wire))
        memory = allocate(job_wire.pushes[-1].stop)
        Outgoing(LAID_OUT.layout, LAID_OUT.parts(), job_wire, memory, torch.device("cuda", 0))
        assert asked == gathered


@pytest.mark.parametrize("job", [LAID_OUT, ON_GPU, UPDATED_ON_GPU])
def test_segments_of_workers_and_weights_of_shards_are_locked_where_a_gpu_copies_them(
    job: Job, runtime: Runtime
) -> None:
    doors = [ShardDoors(job, part, KEY, "127.0.0.1") for part in job.parts()]
    weights = [door.memory.data_ptr() for door in doors]
    addresses = [door.open(ScriptedEndpoint()) for door in doors]
    attachment, notices = reach(addresses, job, KEY, [Slot(0)])
    assert notices == []
    near = [start // PAGE * PAGE for start in weights]
    sent = attachment.sent[Slot(0)].data_ptr()
    assert [start in runtime.locked for start in near] == [job.shard_device == "cuda"] * 2
    assert (sent in runtime.locked) == job.training.use_gpu
    attachment.close()
    for door in doors:
        door.close()


def test_a_shard_on_a_gpu_without_shared_memory_asks_torch_for_locked_one(asked: list[int]) -> None:
    for job in (LAID_OUT, UPDATED_ON_GPU):
        ShardDoors(replace(job, plane="rpc"), job.parts()[0], KEY, "127.0.0.1")
    assert asked == [LAID_OUT.parts()[0].bytes]


@pytest.mark.parametrize("for_gpu", [False, True])
def test_a_shard_on_a_gpu_locks_the_segments_that_stay(for_gpu: bool, runtime: Runtime) -> None:
    server = ShmServer(ScriptedEndpoint(b"weights!"), key=KEY, slots=2, for_gpu=for_gpu)
    visitor = Visitor(server.name)
    staying, passing = Segment.create(100), Segment.create(200)
    shown = submit(pull(), 1, [(3, 100, False), (4, 200, True)], into=[region(4, 0, 8)])
    visitor.say(shown, [staying.descriptor, passing.descriptor])
    visitor.reply()
    assert list(runtime.locked.values()) == ([100] if for_gpu else [])
    visitor.close()
    server.close()


# ------------------------------------------------------------------ on a real GPU


@pytest.mark.gpu
def test_cuda_takes_a_segment_for_pinned_memory() -> None:
    segment = Segment.create(2**20)
    assert not segment.memory.is_pinned()
    segment.pin()
    assert segment.memory.is_pinned()
    assert segment.memory[PAGE + 256 :].is_pinned()
    source = torch.arange(2**20, device="cuda").to(torch.uint8)
    segment.memory.copy_(source, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(segment.memory, source.cpu())


@pytest.mark.gpu
def test_a_mapping_of_another_process_memory_is_pinned_as_well() -> None:
    segment = Segment.create(2**20)
    mapped = Segment(os.dup(segment.descriptor), segment.size)
    mapped.pin()
    segment.memory.fill_(7)
    assert mapped.memory.is_pinned()
    assert mapped.memory.to("cuda").unique().tolist() == [7]


@pytest.mark.gpu
def test_memory_at_the_place_of_pinned_memory_that_is_gone_is_not_pinned() -> None:
    segment = Segment.create(2**20)
    segment.pin()
    address = segment.address
    del segment
    gc.collect()
    others = [Segment.create(2**20) for _ in range(4)]
    assert all(not other.memory.is_pinned() for other in others)
    assert address in [other.address for other in others]  # the kernel gives the same place again


@pytest.mark.gpu
def test_what_cuda_refuses_is_no_error_of_the_next_kernel() -> None:
    memory = np.zeros(4 * PAGE, np.uint8)
    pin(memory)
    assert not pin(memory)  # it is locked already
    assert torch.ones(3, device="cuda").sum().item() == 3.0


@pytest.mark.gpu
def test_memory_for_a_gpu_is_page_locked() -> None:
    assert allocate_pinned(1000).is_pinned()
