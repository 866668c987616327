"""A shard whose replies a test gives by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from psgd.core.layout import Span
from psgd.core.messages import Reply, Request
from psgd.transport.base import Deliver, PushId, Upload
from psgd.transport.payload import scatter
from psgd.transport.upload import LateUpload


@dataclass
class Sent:
    """A request that waits for the test to answer it."""

    request: Request
    deliver: Deliver
    payload: bytes | None
    into: Sequence[memoryview]

    def answer(self, reply: Reply, content: bytes = b"") -> None:
        if content:
            assert len(content) == sum(piece.nbytes for piece in self.into)
            scatter(memoryview(content), self.into)
        self.deliver(reply, None)


class NotedUpload(LateUpload):
    """Notes what is said before the end."""

    def __init__(self, connection: "ScriptedConnection", push: PushId, payload: memoryview) -> None:
        super().__init__(connection, payload)
        self.push = push
        self.ready_spans: list[Span] = []

    def ready(self, span: Span) -> None:
        self.ready_spans.append(span)


@dataclass
class ScriptedConnection:
    """Notes what is sent; answers when told to."""

    sent: list[Sent] = field(default_factory=list)
    begun: list[NotedUpload] = field(default_factory=list)

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        self.sent.append(Sent(request, deliver, None if payload is None else bytes(payload), into))

    def take(self) -> Sent:
        """The oldest request that is not answered yet."""
        return self.sent.pop(0)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        self.begun.append(NotedUpload(self, push, payload))
        return self.begun[-1]

    def close(self) -> None:
        """Nothing to close."""
