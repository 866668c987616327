"""A party's way to a shard on its own host."""

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from psgd.core.layout import Span
from psgd.core.messages import Load, Pull, Push, Read, Refused, Reply, Request
from psgd.errors import LostError, PeerError, ResourceError
from psgd.transport import wire
from psgd.transport.base import Connection, Deliver, PushId, Upload
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.payload import as_bytes, copy, scatter, total_bytes, wrong_size
from psgd.transport.shm.greeting import enter
from psgd.transport.shm.offer import Offer, Offers
from psgd.transport.shm.overlay import Overlay
from psgd.transport.shm.packets import Receiver, close_all, new_socket, send
from psgd.transport.shm.segment import Segment, SegmentPool
from psgd.transport.shm.weights import StandingWeights
from psgd.transport.upload import LateUpload

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    """A request that waits for its reply.

    Args:
        into: where the caller wants the bytes.
        lent: where the shard puts them, if that is somewhere else.
        in_place: the caller reads the weights where they are.
    """

    deliver: Deliver
    into: Sequence[memoryview]
    lent: Segment | None = None
    in_place: bool = False


class ShmUpload:
    """A push whose gradient the shard reads where it is, see `psgd.transport.base.Upload`."""

    def __init__(self, connection: "ShmConnection", push: PushId, payload: memoryview) -> None:
        self._connection = connection
        self._push = push
        self._payload = payload
        self._told = False

    def ready(self, span: Span) -> None:
        """The shard may read these bytes."""
        self._told = True
        self._connection.tell_ready(self._push, self._payload, span)

    def withdraw(self) -> None:
        """What the shard has made of them does not count; it has made nothing of what it was not told."""
        if self._told:
            self._connection.tell_ready(self._push, self._payload, None)

    def finish(self, push: Push, deliver: Deliver, into: Sequence[memoryview] = ()) -> None:
        """Push."""
        self._connection.submit(push, deliver, self._payload, into)


class ShmConnection:
    """A connection to a shard on the same host, see `psgd.transport.base.Connection`.

    What lies in the pool's segments, the shard reads and writes there; for all else memory is lent to it, and copied.

    Args:
        name: of the shard's doorbell.
        shard: its number, for what is said about it.
        key: the job's.
        pool: this process' segments.
        make_spare: makes a connection of another plane, for requests to which there is too little memory to lend;
            None: they are refused.

    Raises:
        LostError: if there is no such doorbell on this host, or it does not let this party in.
    """

    def __init__(
        self,
        name: str,
        *,
        shard: int,
        key: JobKey,
        pool: SegmentPool,
        make_spare: Callable[[], Connection] | None = None,
    ) -> None:
        self._make_spare = make_spare
        self._spare: Connection | None = None
        self._name = f"shard {shard} at unix:@{name}"
        self._offers = Offers(pool)
        self._caller = secrets.randbits(64)
        self._sequence = count()
        self._lock = threading.Lock()
        self._under_way: dict[int, _Call] = {}
        self._ended: str | None = None
        self._socket = new_socket()
        self._receiver = Receiver(self._socket)
        try:
            self._welcome, self._weights = self._enter(name, key)
        except (OSError, PeerError) as error:
            self._socket.close()
            raise LostError(f"{self._name} can not be reached: {error}") from error
        self._thread = threading.Thread(target=self._listen, name=f"psgd-shm-{shard}", daemon=True)
        self._thread.start()

    def lay_weights(self, overlay: Overlay, start: int) -> bool:
        """Where the mode lets it, show the shard's weights in an overlay: pulls into that place take no copy then.

        Args:
            start: byte of the overlay at which the shard's pushed part belongs.

        Returns:
            Whether they are shown.

        Raises:
            ResourceError: if the kernel refuses.
        """
        with self._lock:  # whoever ends the connection lets go of the weights
            if self._weights is None or self._ended is not None:
                return False
            self._weights.lay_over(overlay, start)
            return True

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        """Ring; see `psgd.transport.base.Connection`.

        Raises:
            InternalError: if a number of the request can not be sent, or it is a message among shards.
        """
        content = as_bytes(payload)
        sequence = next(self._sequence)
        message = wire.request_message(wire.OperationId(self._caller, sequence), request)
        if content.nbytes and not isinstance(request, Push | Load):
            deliver(self._refused(wrong_size(type(request), content.nbytes, 0)), None)
            return
        with self._lock:
            reason, spare = self._ended, None
            if reason is None:
                call = self._under_way[sequence] = _Call(deliver, into)
                try:
                    self._ring(doorbell_pb2.Submit(request=message), content, call, self._reply_bytes(request))
                except (OSError, ResourceError) as error:
                    del self._under_way[sequence]
                    reason = f"the request could not be sent: {error}"
                    spare = self._spare_for(error)
        if spare is not None:
            spare.submit(request, deliver, payload, into)
        elif reason is not None:
            deliver(self._refused(reason), None)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        """Begin a push, of which the shard may average what is final: where a step waits for all slots."""
        if self._weights is None:
            return LateUpload(self, payload)
        return ShmUpload(self, push, payload)

    def tell_ready(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """Tell the shard about bytes of a push to come, see `psgd.transport.base.Endpoint`; only a hint."""
        message = doorbell_pb2.Ready(
            push=wire.push_id_message(push),
            start=0 if ready is None else ready.start,
            stop=0 if ready is None else ready.stop,
        )
        with self._lock:
            offer = Offer(message, self._offers)
            region = offer.locate(payload)
            if region is None or self._ended is not None:
                return
            message.payload.CopyFrom(region)
            with suppress(OSError):  # the push itself will say so
                send(self._socket, doorbell_pb2.Ring(ready=message), offer.descriptors)
                offer.made()

    def close(self) -> None:
        """Refuse what is under way, and wait for it unless called from within a delivery."""
        self._end("the connection was closed")
        if self._spare is not None:
            self._spare.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ------------------------------------------------------------------ out

    def _enter(self, name: str, key: JobKey) -> tuple[doorbell_pb2.Welcome, StandingWeights | None]:
        """Show the token.

        Raises:
            PeerError: if the shard does not let this party in.
        """
        welcome, descriptors = enter(self._socket, self._receiver, name, key)
        try:
            return welcome, StandingWeights(descriptors.pop(0), welcome) if descriptors else None
        finally:
            close_all(descriptors)

    def _ring(self, submit: doorbell_pb2.Submit, content: memoryview, call: _Call, expected: int) -> None:
        """Send a request with what goes with it.

        Raises:
            ResourceError: if there is too little memory to lend.
            OSError: if the shard is gone.
        """
        offer = Offer(submit, self._offers)
        self._offer_payload(submit, offer, content)
        self._offer_room(submit, offer, call, expected)
        send(self._socket, doorbell_pb2.Ring(submit=submit), offer.descriptors)
        offer.made()

    def _spare_for(self, error: OSError | ResourceError) -> Connection | None:
        """The connection for what this one can not lend memory to; made once it is needed."""
        if self._make_spare is None or not isinstance(error, ResourceError):
            return None
        if self._spare is None:
            _log.warning("%s is asked on another plane: %s", self._name, error)
            self._spare = self._make_spare()
        return self._spare

    def _offer_payload(self, submit: doorbell_pb2.Submit, offer: Offer, content: memoryview) -> None:
        if not content.nbytes:
            return
        region = offer.locate(content)
        if region is None:
            segment = Segment.create(content.nbytes)
            copy(segment.view, content)
            region = offer.lend(segment)
        submit.payload.CopyFrom(region)

    def _offer_room(self, submit: doorbell_pb2.Submit, offer: Offer, call: _Call, expected: int) -> None:
        """Say where the bytes of the reply go."""
        if not expected:
            return
        if self._weights is not None and call.into and self._weights.are_at(call.into[0]):
            call.in_place = submit.in_place = True
            return
        wanted = [as_bytes(piece) for piece in call.into if piece.nbytes]
        regions = [region for region in map(offer.locate, wanted) if region is not None]
        if not regions or len(regions) < len(wanted):
            call.lent = Segment.create(total_bytes(wanted) if call.into else expected)
            regions = [offer.lend(call.lent)]
        submit.into.extend(regions)

    def _reply_bytes(self, request: Request) -> int:
        match request:
            case Read():
                return self._welcome.total_bytes
            case Pull(whole=True):
                return self._welcome.whole_bytes
            case Pull() | Push(renew=True):
                return self._welcome.pull_bytes
            case _:
                return 0

    # ------------------------------------------------------------------ in, on a thread of the connection

    def _listen(self) -> None:
        reason = "it closed the connection"
        try:
            while (received := self._receiver.receive(doorbell_pb2.Chime)) is not None:
                chime, descriptors = received
                close_all(descriptors)
                if chime.WhichOneof("chime") != "delivered":
                    reason = chime.farewell or reason
                    break
                self._take(chime.delivered)
        except (OSError, PeerError) as error:
            reason = str(error)
        finally:
            self._end(reason)
            self._socket.close()
            if self._weights is not None:
                self._weights.close()

    def _take(self, delivered: doorbell_pb2.Delivered) -> None:
        reply = wire.reply_of(delivered.reply)
        with self._lock:  # while bytes land, so that none does after close()
            call = self._under_way.pop(delivered.sequence, None)
            payload = None if call is None else self._landed(call, delivered.size)
        if call is not None:
            self._deliver(call, reply, payload)

    def _landed(self, call: _Call, size: int) -> memoryview | None:
        """The bytes of a reply lie where the caller wants them, or are returned."""
        if not size:
            return None
        if call.in_place and self._weights is not None:
            self._weights.complete(as_bytes(call.into[0]), as_bytes(call.into[1]) if len(call.into) > 1 else None)
        elif call.lent is not None:
            if not call.into:
                return call.lent.view[:size]
            scatter(call.lent.view, call.into)
        return None

    def _deliver(self, call: _Call, reply: Reply, payload: memoryview | None) -> None:
        try:
            call.deliver(reply, payload)
        except Exception:
            _log.exception("%s: whoever waited for %s could not take it", self._name, type(reply).__name__)

    def _end(self, reason: str) -> None:
        """Refuse what is under way, and everything from here on; the first reason is the one that counts."""
        with self._lock:
            self._ended = self._ended or reason
            given_up, self._under_way = self._under_way, {}
            if self._socket.fileno() >= 0:
                with suppress(OSError):  # the other side was quicker
                    self._socket.shutdown(socket.SHUT_RDWR)
        for call in given_up.values():
            self._deliver(call, self._refused(self._ended), None)

    def _refused(self, reason: str) -> Refused:
        return Refused(f"{self._name}: {reason}")
