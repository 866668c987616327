"""Payloads on every plane: how many bytes belong to a request, and where those of a reply land."""

from psgd.core.messages import Load, Push, Refused, Reply, Request
from psgd.transport.base import Endpoint


def as_bytes(view: memoryview | None) -> memoryview:
    """The same memory, counted in bytes; nothing is an empty view."""
    return memoryview(b"") if view is None or view.nbytes == 0 else view.cast("B")


def expected_bytes(endpoint: Endpoint, kind: type[Request]) -> int:
    """How many bytes the endpoint takes with a request of this kind."""
    if kind is Push:
        return endpoint.pushed_bytes
    return endpoint.total_bytes if kind is Load else 0


def wrong_size(kind: type, size: int, expected: int) -> str:
    """One line that names both numbers."""
    return f"the payload of {kind.__name__} has {size} bytes, expected {expected}"


def land(reply: Reply, payload: memoryview | None, into: memoryview | None) -> tuple[Reply, memoryview | None]:
    """What the caller gets of a reply: its bytes lie in ``into`` where there is one, and come beside it where not."""
    content = as_bytes(payload)
    if not content.nbytes:
        return reply, None
    if into is None:
        return reply, content
    if content.nbytes != into.nbytes:
        return Refused(wrong_size(type(reply), content.nbytes, into.nbytes)), None
    as_bytes(into)[:] = content
    return reply, None
