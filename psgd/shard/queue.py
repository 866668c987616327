"""The apply queue: whoever calls, one request after the other reaches the shard."""

import contextlib
import queue
import threading
import time
from concurrent.futures import Future

from psgd.core.messages import Refused, Request
from psgd.shard.shard import ParameterShard
from psgd.transport.base import Deliver, Sizes

TICK_S = 0.25

Item = tuple[Request, Deliver, memoryview | None]


class ThreadedQueue:
    """An endpoint that any thread may call; one thread of its own drives the shard.

    Attributes:
        failure: resolved with None by `close`, or with the exception that broke the shard (a user's optimizer may
            raise); from then on every request is refused.
    """

    def __init__(self, shard: ParameterShard) -> None:
        self.failure: Future[None] = Future()
        self._shard = shard
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="psgd-apply", daemon=True)
        self._thread.start()

    @property
    def sizes(self) -> Sizes:
        """Of the shard's payloads."""
        return self._shard.sizes

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Queue the request."""
        self._items.put((request, deliver, payload))

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._items.put(None)
        self._thread.join()

    def _run(self) -> None:
        ticked = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                item = self._items.get(timeout=TICK_S)
                if item is None:
                    break
                self._take(item)
            if time.monotonic() - ticked >= TICK_S:
                self._take(None)
                ticked = time.monotonic()
        if not self.failure.done():
            self.failure.set_result(None)

    def _take(self, item: Item | None) -> None:
        """One request, or a tick. A shard that has failed once is not to be trusted with another."""
        if self.failure.done():
            if item is not None:
                item[1](Refused(f"the shard failed: {self.failure.exception()!r}"), None)
            return
        try:
            if item is None:
                self._shard.tick()
            else:
                self._shard.submit(*item)
        except Exception as error:  # whatever the user's optimizer raises must reach the driver
            self.failure.set_exception(error)
            if item is not None:
                item[1](Refused(f"the shard failed: {error!r}"), None)
