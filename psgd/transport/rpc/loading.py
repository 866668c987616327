"""A shard that says when it has its first weights."""

from collections.abc import Callable
from functools import partial

from psgd.core.messages import Load, Loaded, Reply, Request
from psgd.transport.base import Deliver, Endpoint, Sizes


class Loading:
    """An endpoint as it is; somebody hears of it when its first weights have come, whichever way they came.

    Args:
        loaded: called when the shard holds them.
    """

    def __init__(self, endpoint: Endpoint, loaded: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._loaded = loaded
        self.prepare = endpoint.prepare

    @property
    def sizes(self) -> Sizes:
        """Of the shard's payloads."""
        return self._endpoint.sizes

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Hand the request on."""
        self._endpoint.submit(request, partial(self._hear, deliver) if isinstance(request, Load) else deliver, payload)

    def _hear(self, deliver: Deliver, reply: Reply, payload: memoryview | None) -> None:
        if isinstance(reply, Loaded):
            self._loaded()
        deliver(reply, payload)
