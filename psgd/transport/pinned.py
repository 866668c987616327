"""Page-locked host memory: a GPU copies to it and from it by itself, while everybody goes on."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from psgd.transport.flat import allocate

_log = logging.getLogger(__name__)

_SUCCESS = 0


def pin(memory: "npt.NDArray[np.uint8]") -> bool:
    """Lock the pages of memory that was mapped, until the last view of it is gone.

    Must be undone before the memory is unmapped: what is mapped at its place later would be taken for it.

    Args:
        memory: (size,) uint8, all that there is on its pages; whoever looks at the mapping looks at it through this
            very array.

    Returns:
        Whether CUDA does that. Where it does not, copies are slower, but right.
    """
    if not memory.size or not torch.cuda.is_available():
        return False
    runtime = torch.cuda.cudart()
    address = memory.ctypes.data
    outcome = runtime.cudaHostRegister(address, memory.nbytes, 0)
    if int(outcome) != _SUCCESS:
        _forget_error(runtime)
        _log.warning(
            "%d bytes of memory are not page-locked, so that copies to and from the GPU are slower: CUDA says %s",
            memory.nbytes,
            runtime.cudaGetErrorString(outcome),
        )
        return False
    # Not at exit: the process takes the locks along, and CUDA may be gone by then.
    weakref.finalize(memory, _unpin, runtime, address).atexit = False
    return True


def allocator(for_gpu: bool) -> Callable[[int], torch.Tensor]:
    """What gives zeroed memory, (size,) uint8: page-locked if a GPU is to copy to it or from it."""
    return allocate_pinned if for_gpu else allocate


def allocate_pinned(size: int) -> torch.Tensor:
    """Zeroed memory whose pages are locked, or plain one where CUDA has none to give: (size,) uint8."""
    try:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        _log.warning("%d bytes of memory are not page-locked, so that copies are slower: %s", size, reason)
        return allocate(size)


def _unpin(runtime: Any, address: int) -> None:
    torch.cuda.synchronize()  # a copy may still be under way, if an iteration was broken off
    if int(runtime.cudaHostUnregister(address)) != _SUCCESS:
        _forget_error(runtime)


def _forget_error(runtime: Any) -> None:
    """CUDA keeps the last error of a thread until it is read; else the next kernel would be blamed for it."""
    if hasattr(runtime, "cudaGetLastError"):  # not in every torch
        runtime.cudaGetLastError()
        return
    try:
        torch.zeros(1, device="cuda")  # torch reads the error after it has launched a kernel, and raises it
    except RuntimeError:
        _log.debug("CUDA's last error has been read")
