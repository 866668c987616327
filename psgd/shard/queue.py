"""The apply queue: whoever calls, one request after the other reaches the shard."""

import queue
import threading
from concurrent.futures import Future

from psgd.core.messages import Refused, Request
from psgd.shard.shard import ParameterShard
from psgd.transport.base import Deliver, Sizes

TICK_S = 0.25

Item = tuple[Request, Deliver, memoryview | None]


class ThreadedQueue:
    """An endpoint that any thread may call.

    Whoever finds the shard idle drives it on its own thread, also through what comes in meanwhile: to wake another
    thread would take longer than most requests.

    Attributes:
        failure: resolved with None by `close`, or with the exception that broke the shard (a user's optimizer may
            raise); from then on every request is refused.
    """

    def __init__(self, shard: ParameterShard) -> None:
        self.failure: Future[None] = Future()
        self._shard = shard
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._driving = threading.Lock()
        self._closing = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="psgd-tick", daemon=True)
        self._ticking.start()

    @property
    def sizes(self) -> Sizes:
        """Of the shard's payloads."""
        return self._shard.sizes

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Queue the request; the caller may have to carry it out."""
        self._put((request, deliver, payload))

    def close(self) -> None:
        """Finish what is queued; ticks end."""
        self._closing.set()
        self._ticking.join()
        with self._driving:
            if not self.failure.done():
                self.failure.set_result(None)

    def _tick(self) -> None:
        while not self._closing.wait(TICK_S):
            self._put(None)

    def _put(self, item: Item | None) -> None:
        """Queue a request, or a tick. Whoever drives looks again after letting go: so nothing is left behind."""
        self._items.put(item)
        while not self._items.empty() and self._driving.acquire(blocking=False):
            try:
                self._drive()
            finally:
                self._driving.release()

    def _drive(self) -> None:
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                return
            self._take(item)

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
