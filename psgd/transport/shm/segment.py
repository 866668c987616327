"""Segments: memory that processes of one host share by handing over its descriptor.

A segment has no name: it goes when the last process that has it goes, however that ends.
"""

import fcntl
import mmap
import os
from bisect import bisect_right
from pathlib import Path

import numpy as np
import torch

from psgd.errors import PeerError, ResourceError
from psgd.transport.pinned import pin

PAGE = mmap.PAGESIZE
"""Bytes."""

_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; Python has no name for it before 3.13
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Segment:
    """Shared memory of a fixed size, mapped into this process.

    Args:
        descriptor: of the memory, whose size must be sealed; the segment owns it from here on.
        size: bytes that are mapped, from the start.

    Raises:
        PeerError: if it is no sealed memory of at least this size.
        OSError: if it can not be mapped.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._bytes = map_sealed(descriptor, size, mmap.PROT_READ | mmap.PROT_WRITE)
        self._descriptor = _Descriptor(descriptor)
        self.address: int = self._bytes.ctypes.data
        self.view: memoryview = self._bytes.data
        """All of it, writable."""

    @classmethod
    def create(cls, size: int) -> "Segment":
        """Allocate zeroed memory, all of it now: what is missing shows here, not in the middle of a run.

        Args:
            size: bytes.

        Raises:
            ResourceError: if there is too little memory.
        """
        available = _available_bytes()
        if available is not None and size > available:
            raise ResourceError(f"{size} bytes of shared memory are wanted, {available} bytes are available")
        try:
            return cls(_allocate(size), size)
        except OSError as error:
            raise ResourceError(f"{size} bytes of shared memory are wanted: {error.strerror}") from error

    @property
    def descriptor(self) -> int:
        """To be handed over; it stays the segment's."""
        return self._descriptor.number

    @property
    def memory(self) -> torch.Tensor:
        """All of it: (size,) uint8."""
        return torch.from_numpy(np.frombuffer(self.view, np.uint8)) if self.size else torch.empty(0, dtype=torch.uint8)

    def seal_against_writers(self) -> None:
        """Whoever maps it from here on may read it, but not write to it; this mapping stays writable."""
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)

    def pin(self) -> None:
        """Let a GPU copy to it and from it by itself, if it can, until nobody refers to the memory any more."""
        pin(self._bytes)


class SegmentPool:
    """The segments of this process that others may be asked to map; finds them by address.

    Args:
        for_gpu: a GPU is to copy to them and from them.
    """

    def __init__(self, for_gpu: bool = False) -> None:
        self._segments: list[Segment] = []  # by address
        self._for_gpu = for_gpu

    def allocate(self, size: int) -> torch.Tensor:
        """Zeroed shared memory: (size,) uint8.

        Raises:
            ResourceError: if there is too little memory.
        """
        segment = Segment.create(size)
        if self._for_gpu:
            segment.pin()
        self._segments.append(segment)
        self._segments.sort(key=lambda each: each.address)
        return segment.memory

    def locate(self, view: memoryview) -> tuple[Segment, int] | None:
        """The segment that the view lies in, and at which byte of it; None if it lies in none."""
        address = address_of(view)
        at = bisect_right(self._segments, address, key=lambda segment: segment.address) - 1
        if at < 0:
            return None
        segment = self._segments[at]
        offset = address - segment.address
        return (segment, offset) if offset + view.nbytes <= segment.size else None


def address_of(view: memoryview) -> int:
    """Where the memory lies in this process."""
    return int(np.frombuffer(view, np.uint8).ctypes.data)


class _Descriptor:
    """A file descriptor that closes with its owner."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


def _allocate(size: int) -> int:
    """Sealed memory of whole pages, at least one: nothing can not be mapped.

    Raises:
        OSError: if there is too little memory.
    """
    descriptor = os.memfd_create("psgd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(descriptor, 0, max(-(-size // PAGE), 1) * PAGE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_sealed(descriptor: int, size: int, access: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Map memory that can not shrink under whoever maps it: (size,) uint8.

    Args:
        descriptor: closed if this fails.
        access: ``mmap.PROT_READ``, perhaps with ``mmap.PROT_WRITE``.

    Raises:
        PeerError: if it is no sealed memory of at least ``size`` bytes.
        OSError: if it can not be mapped.
    """
    try:
        _check_sealed(descriptor, size)
        mapped = mmap.mmap(descriptor, max(size, 1), flags=mmap.MAP_SHARED, prot=access)
    except (PeerError, OSError):
        os.close(descriptor)
        raise
    return np.frombuffer(mapped, np.uint8)[:size]


def _check_sealed(descriptor: int, size: int) -> None:
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise PeerError(f"a segment must be sealed memory, got another kind of file: {error.strerror}") from error
    if seals & _SIZE_SEALS != _SIZE_SEALS:
        raise PeerError("a segment's size must be sealed, got one that may shrink under its reader")
    actual = os.fstat(descriptor).st_size
    if actual < max(size, 1):
        raise PeerError(f"a segment has {actual} bytes, its message says {size}")


def _available_bytes() -> int | None:
    """Memory that can be had without swapping, as kernel and container say; None where they do not say."""
    known = [available for available in (_available_on_host(), _available_in_container()) if available is not None]
    return min(known, default=None)


def _available_on_host() -> int | None:
    figures = _figures(Path("/proc/meminfo"))
    return figures["MemAvailable:"] * 1024 if "MemAvailable:" in figures else None


def _available_in_container() -> int | None:
    """What a control group (version 2) leaves; its idle page cache would make room."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, current = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # none, or "max": no limit
        return None
    return limit - current + _figures(group / "memory.stat").get("inactive_file", 0)


def _figures(path: Path) -> dict[str, int]:
    """A file of the kernel's with a name and a number in each line."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
