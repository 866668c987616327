"""An overlay: private memory with spans of others' segments laid over it."""

import ctypes
import mmap
import os

import numpy as np
import torch

from psgd.core.layout import Span
from psgd.errors import ResourceError
from psgd.transport.shm.segment import PAGE

_MAP_FIXED = 0x10  # linux/mman.h; Python's mmap can not choose an address

# The kernel's Documentation/admin-guide/mm/pagemap.rst: an entry a page; present or swapped out, of a file or shared.
_ENTRY_BYTES = 8
_HERE = np.uint64(1 << 63 | 1 << 62)
_OF_A_FILE = np.uint64(1 << 61)


class Overlay:
    """Contiguous private memory, in which some spans show other segments as they are now.

    What is written to such a span stays in this process, and hides what its owner writes to that page from then on.

    Args:
        size: bytes.

    Raises:
        ResourceError: if there is too little memory.
    """

    def __init__(self, size: int) -> None:
        try:
            mapped = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise ResourceError(f"{size} bytes of memory are wanted: {error.strerror}") from error
        bytes_ = np.frombuffer(mapped, np.uint8)[:size]
        self._address = bytes_.ctypes.data
        self.memory = torch.from_numpy(bytes_)
        """(size,) uint8."""
        self._laid: list[Span] = []

    def lay(self, descriptor: int, offset: int, start: int, stop: int) -> tuple[int, int]:
        """Show a segment's bytes from ``offset`` on at ``start`` to ``stop``, as far as these are whole pages.

        Args:
            offset: lies as far behind a page's beginning as ``start`` does.

        Returns:
            The span that shows the segment; the bytes before and behind it are still this process' own.

        Raises:
            ResourceError: if the kernel refuses.
        """
        first, last = -(-start // PAGE) * PAGE, stop // PAGE * PAGE
        if first >= last:
            return start, start
        at = offset + first - start
        place = _mmap(
            self._address + first,
            last - first,
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE | _MAP_FIXED,
            descriptor,
            at,
        )
        if place != self._address + first:
            raise ResourceError(f"the shard's weights can not be mapped: {os.strerror(ctypes.get_errno())}")
        self._laid.append(Span(first, last))
        return first, last

    def written(self) -> int | None:
        """The first byte of a page that shows its segment no more because this process has written to it, or None.

        Takes about a millisecond for 100 MB: the kernel is asked about each page.
        """
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            for span in self._laid:
                pagemap.seek((self._address + span.start) // PAGE * _ENTRY_BYTES)
                entries = np.frombuffer(pagemap.read(span.bytes // PAGE * _ENTRY_BYTES), np.uint64)
                own = np.flatnonzero((entries & _HERE != 0) & (entries & _OF_A_FILE == 0))
                if own.size:
                    return span.start + int(own[0]) * PAGE
        return None


def _bind() -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    return function


_mmap = _bind()
