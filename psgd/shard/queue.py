"""The apply queue: whoever calls, one request after the other reaches the shard."""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass

from psgd.core.layout import Span
from psgd.core.messages import Refused, Request
from psgd.shard.shard import ParameterShard
from psgd.transport.base import Deliver, PushId, Sizes

TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request."""

    request: Request
    deliver: Deliver
    payload: memoryview | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """Bytes of a push to come."""

    push: PushId
    payload: memoryview
    span: Span | None


Item = _Asked | _Ready | None
"""None: a tick."""


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
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
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
        self._put(_Asked(request, deliver, payload))

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """Queue what is known of a push to come."""
        self._put(_Ready(push, payload, ready))

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

    def _put(self, item: Item) -> None:
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

    def _take(self, item: Item) -> None:
        """A shard that has failed once is not to be trusted with another request."""
        if not self.failure.done():
            try:
                self._hand_on(item)
            except Exception as error:  # whatever the user's optimizer raises must reach the driver
                self.failure.set_exception(error)
            else:
                return
        if isinstance(item, _Asked):
            item.deliver(Refused(f"the shard failed: {self.failure.exception()!r}"), None)

    def _hand_on(self, item: Item) -> None:
        match item:
            case _Asked(request, deliver, payload):
                self._shard.submit(request, deliver, payload)
            case _Ready(push, payload, span):
                self._shard.prepare(push, payload, span)
            case None:
                self._shard.tick()
