import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from psgd.errors import PeerError, ResourceError
from psgd.transport.shm import segment as segments
from psgd.transport.shm.segment import PAGE, Segment, SegmentPool
from tests.transport.shm.footprint import footprint

SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def memfd(size: int, seals: int = SIZE_SEALS) -> int:
    """Memory as a peer may show it."""
    descriptor = os.memfd_create("psgd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# ------------------------------------------------------------------ allocation


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1])
def test_a_segment_is_zeroed_and_writable_over_its_size(size: int) -> None:
    segment = Segment.create(size)
    assert (segment.size, segment.view.nbytes, segment.memory.shape) == (size, size, (size,))
    assert not segment.memory.any()
    segment.memory.fill_(7)
    assert bytes(segment.view) == bytes([7]) * size


def test_nobody_can_change_the_size() -> None:
    segment = Segment.create(3 * PAGE)
    for size in (PAGE, 4 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.descriptor, size)


def test_all_of_it_is_allocated_at_once() -> None:
    segment = Segment.create(64 * PAGE)
    assert os.fstat(segment.descriptor).st_blocks * 512 == 64 * PAGE


def test_descriptor_and_mapping_go_with_the_segment_and_its_memory() -> None:
    before = footprint()
    segment = Segment.create(PAGE)
    memory = segment.memory
    descriptor = segment.descriptor
    del segment
    assert not is_open(descriptor)
    memory.fill_(1)  # what is mapped stays as long as somebody looks at it
    del memory
    assert footprint() == before


def test_more_than_is_available_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_available_bytes", lambda: 5000)
    Segment.create(5000)
    with pytest.raises(ResourceError, match=r"^5001 bytes of shared memory are wanted, 5000 bytes are available$"):
        Segment.create(5001)


def test_what_is_available_is_the_least_of_what_kernel_and_container_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def text(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content)
        return path

    text("meminfo", "MemTotal:   900 kB\nMemAvailable:    400 kB\nHugePages_Total:  0\n")
    text("memory.max", "300000\n")
    text("memory.current", "200000\n")
    text("memory.stat", "anon 7\ninactive_file 1234\n")
    monkeypatch.setattr(segments, "Path", lambda path: tmp_path / "meminfo" if path == "/proc/meminfo" else tmp_path)

    def is_refused(size: int) -> str:
        with pytest.raises(ResourceError) as raised:
            Segment.create(size)
        return str(raised.value)

    assert is_refused(101_235).endswith(" 101234 bytes are available")
    text("memory.max", "max\n")
    assert is_refused(400 * 1024 + 1).endswith(" 409600 bytes are available")
    (tmp_path / "meminfo").unlink()
    Segment.create(400 * 1024 + 1)  # nobody says, so the kernel decides


def refusing(error: int) -> Callable[..., int]:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(error, os.strerror(error))

    return refuse


@pytest.mark.parametrize("call", ["memfd_create", "posix_fallocate"])
def test_what_the_kernel_refuses_is_a_resource_error_that_names_the_bytes(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = footprint()
    monkeypatch.setattr(os, call, refusing(errno.EMFILE))
    with pytest.raises(ResourceError, match=r"^12345 bytes of shared memory are wanted: Too many open files$"):
        Segment.create(12345)
    assert footprint() == before


def test_memory_that_can_not_be_mapped_is_a_resource_error_that_names_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = footprint()
    monkeypatch.setattr(mmap, "mmap", refusing(errno.ENOMEM))
    with pytest.raises(ResourceError, match=r"^12345 bytes of shared memory are wanted: Cannot allocate memory$"):
        Segment.create(12345)
    monkeypatch.undo()
    assert footprint() == before


LIMITED = """
import resource
from psgd.errors import ResourceError
from psgd.transport.shm import Segment
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
Segment.create(2**20)
try:
    Segment.create(2**20 + 1)
except ResourceError as error:
    print(error)
"""


def test_a_limit_of_the_process_is_met_at_allocation() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1048577 bytes of shared memory are wanted: File too large\n"


# ------------------------------------------------------------------ memory of a peer's


@pytest.mark.parametrize("size", [0, 1, 100, PAGE, PAGE + 1])
def test_a_peers_memory_may_end_where_its_message_says(size: int) -> None:
    theirs = memfd(max(size, 1))
    mine = Segment(os.dup(theirs), size)
    mine.memory.fill_(9)
    assert os.pread(theirs, size, 0) == bytes([9]) * size
    os.close(theirs)


def regular_file() -> int:
    return os.open("/proc/self/exe", os.O_RDONLY)


@pytest.mark.parametrize(
    ("shown", "size", "message"),
    [
        (lambda: memfd(PAGE, seals=0), PAGE, "a segment's size must be sealed, got one that may shrink"),
        (lambda: memfd(PAGE, fcntl.F_SEAL_GROW), PAGE, "a segment's size must be sealed, got one that may shrink"),
        (regular_file, 1, "a segment must be sealed memory, got another kind of file"),
        (lambda: memfd(PAGE), PAGE + 1, f"a segment has {PAGE} bytes, its message says {PAGE + 1}"),
        (lambda: memfd(PAGE), 2**63, f"a segment has {PAGE} bytes, its message says {2**63}"),
        (lambda: memfd(0), 0, "a segment has 0 bytes"),
    ],
)
def test_memory_that_can_vanish_under_its_reader_is_not_mapped(
    shown: Callable[[], int], size: int, message: str
) -> None:
    before = footprint()
    descriptor = shown()
    with pytest.raises(PeerError, match=message) as raised:
        Segment(descriptor, size)
    assert not is_open(descriptor)
    assert "\n" not in str(raised.value)
    assert footprint() == before


def test_memory_that_can_not_be_written_is_closed() -> None:
    descriptor = memfd(PAGE, SIZE_SEALS | fcntl.F_SEAL_WRITE)
    with pytest.raises(OSError):  # noqa: PT011, a permission, as the kernel says it
        Segment(descriptor, PAGE)
    assert not is_open(descriptor)


# ------------------------------------------------------------------ seals


def test_a_segment_sealed_against_writers_shows_its_owners_writes_and_takes_no_others() -> None:
    segment = Segment.create(PAGE)
    segment.seal_against_writers()
    theirs = os.dup(segment.descriptor)
    with pytest.raises(PermissionError):
        mmap.mmap(theirs, PAGE, flags=mmap.MAP_SHARED)
    with pytest.raises(PermissionError):
        os.pwrite(theirs, b"theirs", 0)
    with pytest.raises(PermissionError):
        fcntl.fcntl(theirs, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)  # which would lock out the owner
    reading = mmap.mmap(theirs, PAGE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    segment.view[:4] = b"mine"
    assert reading[:4] == b"mine"
    reading.close()
    os.close(theirs)


# ------------------------------------------------------------------ the pool


def test_a_view_is_found_with_its_segment_and_offset() -> None:
    pool = SegmentPool()
    memories = [pool.allocate(2 * PAGE) for _ in range(3)]
    for memory in memories:
        view = memory.numpy().data
        for start, stop in ((0, 1), (0, 2 * PAGE), (100, 5000), (2 * PAGE - 1, 2 * PAGE)):
            located = pool.locate(view[start:stop])
            assert located is not None
            segment, offset = located
            assert offset == start
            memory[start] = 5
            assert segment.view[offset] == 5
            memory[start] = 0


def test_views_of_other_types_are_found_by_their_bytes() -> None:
    pool = SegmentPool()
    memory = pool.allocate(PAGE).view(torch.float32)
    located = pool.locate(memory[64:].numpy().data)
    assert located is not None
    assert located[1] == 256


def test_what_is_not_wholly_in_one_segment_is_found_in_none() -> None:
    pool = SegmentPool()
    assert pool.locate(memoryview(b"foreign")) is None
    whole = Segment.create(2 * PAGE)  # two neighbours in memory: the halves of one mapping
    for start in (0, PAGE):
        half = Segment.create(PAGE)
        half.address, half.view = whole.address + start, whole.view[start : start + PAGE]
        pool._segments.append(half)
    assert pool.locate(whole.view[: PAGE + 1]) is None
    assert pool.locate(whole.view[PAGE - 1 :]) is None
    assert pool.locate(whole.view[PAGE:]) == (pool._segments[1], 0)
    assert pool.locate(np.zeros(3, np.float32).data) is None
    assert pool.locate(memoryview(bytearray(PAGE))) is None


def test_a_view_into_the_rest_of_the_last_page_is_not_the_segments() -> None:
    pool = SegmentPool()
    memory = pool.allocate(100)
    beyond = np.lib.stride_tricks.as_strided(memory.numpy(), (101,))
    assert pool.locate(beyond[:100].data) is not None
    assert pool.locate(beyond.data) is None


def test_an_empty_view_breaks_nothing() -> None:
    pool = SegmentPool()
    assert pool.locate(memoryview(b"")) is None
    memory = pool.allocate(0)
    assert memory.shape == (0,)
    pool.locate(memory.numpy().data)
    view = pool.allocate(100).numpy().data
    for at in (0, 100):
        located = pool.locate(view[at:at])
        assert located is None or located[1] == at


def test_the_pools_memory_is_short_when_the_segments_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_available_bytes", lambda: 10)
    with pytest.raises(ResourceError):
        SegmentPool().allocate(11)
