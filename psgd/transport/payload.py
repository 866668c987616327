"""Payloads on every plane: how many bytes belong to a request, and where those of a reply land."""

from collections.abc import Sequence

import numpy as np

from psgd.core.messages import Load, Push, Refused, Reply, Request
from psgd.transport.base import Endpoint


def as_bytes(view: memoryview | None) -> memoryview:
    """The same memory, counted in bytes; nothing is an empty view."""
    return memoryview(b"") if view is None or view.nbytes == 0 else view.cast("B")


def expected_bytes(endpoint: Endpoint, kind: type[Request]) -> int:
    """How many bytes the endpoint takes with a request of this kind."""
    if kind is Push:
        return endpoint.sizes.push
    return endpoint.sizes.total if kind is Load else 0


def wrong_size(kind: type, size: int, expected: int) -> str:
    """One line that names both numbers."""
    return f"the payload of {kind.__name__} has {size} bytes, expected {expected}"


def total_bytes(pieces: Sequence[memoryview]) -> int:
    """Bytes of all pieces together."""
    return sum(piece.nbytes for piece in pieces)


def scatter(content: memoryview, into: Sequence[memoryview]) -> None:
    """Copy the bytes into the pieces, one after another, with the interpreter free for other threads.

    Args:
        into: as many bytes as ``content`` has.
    """
    start = 0
    for piece in into:
        target = as_bytes(piece)
        copy(target, content[start : start + target.nbytes])
        start += target.nbytes


def copy(target: memoryview, source: memoryview) -> None:
    """Copy all bytes, with the interpreter free for other threads."""
    if target.nbytes:  # numpy takes an empty target for a read-only one
        np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


def land(reply: Reply, payload: memoryview | None, into: Sequence[memoryview]) -> tuple[Reply, memoryview | None]:
    """What the caller gets of a reply: its bytes lie in ``into`` where there is any, and come beside it where not."""
    content = as_bytes(payload)
    if not content.nbytes:
        return reply, None
    if not into:
        return reply, content
    if content.nbytes != total_bytes(into):
        return Refused(wrong_size(type(reply), content.nbytes, total_bytes(into))), None
    scatter(content, into)
    return reply, None
