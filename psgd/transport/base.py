"""What a plane is: it carries requests with their bytes to a shard, and replies with theirs back.

A shard is an `Endpoint`; a plane's `Connection` to it has the same shape, so that what runs against an endpoint
directly runs against a connection, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.layout import Span
from psgd.core.messages import PeerMessage, Push, Reply, Request

Deliver = Callable[[Reply, memoryview | None], None]
"""Takes the reply and its payload. May be called from any thread, at once or later, exactly once a request.

The payload is readable only during the call; on a connection it is None when ``into`` received it.
"""


def nobody_waits(reply: Reply, payload: memoryview | None) -> None:
    """Takes what is answered to a message among shards: these are answered by messages."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many bytes a shard's payloads have.

    Args:
        push: of a push.
        pull: of a pull that is not whole, and of a receipt that renews.
        whole: of a whole pull.
        total: of a load and a snapshot.
    """

    push: int
    pull: int
    whole: int
    total: int


@dataclass(frozen=True, slots=True)
class PushId:
    """Which push some bytes belong to, before its final message says the rest."""

    slot: Slot
    incarnation: Incarnation
    step: Step


class Endpoint(Protocol):
    """The receiving side: a shard behind its apply queue."""

    @property
    def sizes(self) -> Sizes:
        """Of its payloads."""

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Queue the request; ``payload`` belongs to the endpoint until it has replied."""

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """Some bytes of a push to come are final: what can be done with them may be done now. Only a hint.

        Args:
            payload: all of the push's, which it will come with.
            ready: the bytes; None: what was final before is not any more.
        """


class Upload(Protocol):
    """A push whose bytes leave while the rest of them is still computed."""

    def ready(self, span: Span) -> None:
        """These bytes of the payload are final; never blocks."""

    def withdraw(self) -> None:
        """Bytes that were said to be final have changed: they have to be sent again."""

    def finish(self, push: Push, deliver: Deliver, into: Sequence[memoryview] = ()) -> None:
        """All bytes are final; from here on as `Connection.submit`."""


class Connection(Protocol):
    """The sending side: one party's way to one shard."""

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        """Send the request; never blocks on the shard's decision.

        Args:
            deliver: gets the reply. A plane that has given up (after its own retries) delivers `Refused`, whose
                reason says what failed.
            payload: bytes to send; the caller leaves them unchanged until the reply is there.
            into: writable memory, in pieces that are filled one after another before ``deliver`` is called: as many
                bytes as the reply's payload has. None: they come beside the reply.
        """

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        """Begin a push whose payload is still to be computed; to be finished, or left alone."""

    def close(self) -> None:
        """Give up what is under way and free what the connection holds."""


class PeerLink(Protocol):
    """A shard's way to the other shards; best effort, as the protocol sends again what matters."""

    def tell(self, shard: int, message: PeerMessage) -> None:
        """Send without waiting; a message that does not arrive is lost."""

    def close(self) -> None:
        """Stop sending."""
