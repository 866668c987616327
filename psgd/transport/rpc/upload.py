"""A push that leaves on its stream while the rest of it is still computed."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from psgd.core.layout import Span
from psgd.core.messages import Push
from psgd.core.spans import without
from psgd.transport.base import Deliver, PushId
from psgd.transport.rpc.call import Call
from psgd.transport.rpc.frames import at_frame, begin_frame, data_frames, request_frame

MakeCall = Callable[[Push, Deliver, memoryview, Sequence[memoryview]], Call]


class RpcUpload:
    """See `psgd.transport.base.Upload`.

    Args:
        run: lets the connection carry the stream, on a thread of its own.
        make_call: makes a call of the finished push.
        submit: carries a call of which nothing has left.
    """

    def __init__(
        self,
        push: PushId,
        payload: memoryview,
        run: "Callable[[RpcUpload], None]",
        make_call: MakeCall,
        submit: Callable[[Call], None],
    ) -> None:
        self.call: Call | None = None
        self._push = push
        self._payload = payload
        self._run = run
        self._make_call = make_call
        self._submit = submit
        self._lock = threading.Lock()
        self._begun = self._ended = False
        self._pieces: queue.SimpleQueue[Span | Call | None] = queue.SimpleQueue()

    def ready(self, span: Span) -> None:
        """Send these bytes; never blocks."""
        self._pieces.put(span)
        if not self._begun:
            self._begun = True
            self._run(self)

    def withdraw(self) -> None:
        """Break the stream off, if there is one; all bytes leave anew when the push is finished."""
        if self._begun:
            self.end()

    def finish(self, push: Push, deliver: Deliver, into: Sequence[memoryview] = ()) -> None:
        """Send what has not left, and the final message."""
        call = self._make_call(push, deliver, self._payload, into)
        with self._lock:
            under_way = self._begun and not self._ended
            if under_way:
                self.call = call
                self._pieces.put(call)
        if not under_way:
            self._submit(call)

    def end(self) -> Call | None:
        """Nothing more leaves on this stream.

        Returns:
            The finished push, if it was to leave on it.
        """
        with self._lock:
            self._ended = True
        self._pieces.put(None)
        return self.call

    def frames(self) -> Iterator[bytes]:
        """What the stream sends; without a final message it has no effect."""
        yield begin_frame(self._payload.nbytes, self._push)
        sent: list[Span] = []
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, Call):
                for gap in without(Span(0, self._payload.nbytes), sent):
                    yield from self._frames_of(gap)
                yield request_frame(piece.message)
                return
            sent.append(piece)
            yield from self._frames_of(piece)

    def _frames_of(self, span: Span) -> Iterator[bytes]:
        if span.bytes:
            yield at_frame(span)
            yield from data_frames(self._payload[span.start : span.stop])
