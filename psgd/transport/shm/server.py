"""A shard's doorbell: who rings is let in with the job's key, and served until it goes."""

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from psgd.core.layout import Span
from psgd.core.messages import Refused, Reply
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import Endpoint, nobody_waits
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.payload import as_bytes, expected_bytes, land, wrong_size
from psgd.transport.shm.greeting import GREETED_WITHIN_S
from psgd.transport.shm.packets import Receiver, close_all, new_socket, path_of, send
from psgd.transport.shm.segment import Segment

_log = logging.getLogger(__name__)

_BACKLOG = 128
_MOST_SEGMENTS = 1024


class ShmServer:
    """Serves a shard to its own host, from construction to `close`.

    Args:
        endpoint: the shard.
        key: what everybody who rings must show.
        slots: of the job.
        weights: the segment with the shard's memory, and the byte at which it starts there; None where weights may
            not be read in place.
        for_gpu: the shard copies from the segments that it is shown to a GPU.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key: JobKey,
        slots: int,
        weights: tuple[Segment, int] | None = None,
        for_gpu: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._slots = slots
        self._weights = weights
        self._for_gpu = for_gpu
        self._lock = threading.Lock()
        self._visits: set[_Visit] = set()
        self._closed = False
        self.name = f"psgd-{secrets.token_hex(16)}"
        """Of the doorbell; unknown on other hosts."""
        self._socket = new_socket()
        self._socket.bind(path_of(self.name))
        self._socket.listen(_BACKLOG)
        self._thread = threading.Thread(target=self._accept, name="psgd-shm-accept", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let everybody go; their requests are refused. May be called from within an answer."""
        with self._lock:
            self._closed = True
            visits = list(self._visits)
        with suppress(OSError):  # closed before
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for visit in visits:
            visit.close()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self._admit(visitor)

    def _admit(self, visitor: socket.socket) -> None:
        """In a frame of its own, so that the thread that waits for the next visitor holds nothing of the last one."""
        visit = _Visit(visitor, self._endpoint, self._slots, self._for_gpu, self._gone)
        with self._lock:
            closed = self._closed
            if not closed:
                self._visits.add(visit)
        if closed:
            visitor.close()
        else:
            visit.begin(partial(self._greet, visitor))

    def _gone(self, visit: "_Visit") -> None:
        with self._lock:
            self._visits.discard(visit)

    def _greet(self, visitor: socket.socket, ring: doorbell_pb2.Ring) -> None:
        """Welcome whoever shows the job's key.

        Raises:
            PeerError: if it does not.
        """
        rejection = self._key.judge("a hello", ring.hello.job, ring.hello.token)
        if rejection is not None:
            raise PeerError(rejection.line)
        sizes = self._endpoint.sizes
        welcome = doorbell_pb2.Welcome(pull_bytes=sizes.pull, whole_bytes=sizes.whole, total_bytes=sizes.total)
        descriptors = []
        if self._weights is not None:
            segment, offset = self._weights
            welcome.weights.CopyFrom(doorbell_pb2.Region(offset=offset, size=sizes.total))
            descriptors.append(segment.descriptor)
        send(visitor, doorbell_pb2.Chime(welcome=welcome), descriptors)


class _Visit:
    """One party that has rung, and the segments that it has shown."""

    def __init__(
        self,
        visitor: socket.socket,
        endpoint: Endpoint,
        slots: int,
        for_gpu: bool,
        gone: "Callable[[_Visit], None]",
    ) -> None:
        self._socket = visitor
        self._endpoint = endpoint
        self._slots = slots
        self._for_gpu = for_gpu
        self._gone = gone
        self._segments: dict[int, Segment] = {}

    def begin(self, greet: Callable[[doorbell_pb2.Ring], None]) -> None:
        """Serve, on a thread of its own."""
        self._thread = threading.Thread(target=self._serve, args=(greet,), name="psgd-shm-visit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off, and wait for it unless called from within an answer."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self, greet: Callable[[doorbell_pb2.Ring], None]) -> None:
        receiver = Receiver(self._socket)
        try:
            self._socket.settimeout(GREETED_WITHIN_S)
            received = receiver.receive(doorbell_pb2.Ring)
            if received is not None:
                ring, descriptors = received
                close_all(descriptors)
                greet(ring)
                self._socket.settimeout(None)
            while received is not None and (received := receiver.receive(doorbell_pb2.Ring)) is not None:
                self._take(*received)
        except PeerError as error:
            reason = str(error)  # a log that keeps the error would keep the visitor's memory
            _log.warning("a visitor of the doorbell was sent away: %s", reason)
            with suppress(OSError):
                send(self._socket, doorbell_pb2.Chime(farewell=reason))
        except OSError as error:
            _log.debug("a visitor of the doorbell has gone: %s", error)
        finally:
            self._gone(self)
            self._socket.close()

    def _take(self, ring: doorbell_pb2.Ring, descriptors: list[int]) -> None:
        """Hand a message to the shard.

        Raises:
            PeerError: if it is malformed; the shard has not heard of it then.
        """
        match ring.WhichOneof("ring"):
            case "tell":
                close_all(descriptors)
                self._endpoint.submit(wire.peer_message_of(ring.tell), nobody_waits)
            case "submit":
                self._adopt(ring.submit.segments, descriptors)
                self._submit(ring.submit)
            case "ready":
                self._adopt(ring.ready.segments, descriptors)
                self._prepare(ring.ready)
            case _:
                close_all(descriptors)
                raise PeerError("expected a request or a message of another shard, got neither")

    def _prepare(self, ready: doorbell_pb2.Ready) -> None:
        push = wire.push_id_of(ready.push)
        wire.check_slot(push.slot, self._slots)
        payload = self._view(ready.payload)
        if payload.nbytes != self._endpoint.sizes.push or not ready.start <= ready.stop <= payload.nbytes:
            raise PeerError(f"bytes {ready.start} to {ready.stop} of {payload.nbytes} are none of a push")
        self._endpoint.prepare(push, payload, Span(ready.start, ready.stop) if ready.stop else None)

    def _submit(self, submit: doorbell_pb2.Submit) -> None:
        operation, request = wire.request_of(submit.request)
        wire.check_slot(getattr(request, "slot", 0), self._slots)
        payload = self._view(submit.payload) if submit.HasField("payload") else None
        into = None if submit.in_place else [self._view(region) for region in submit.into]
        once = [segment.id for segment in submit.segments if segment.once]
        answer = partial(self._answer, operation.sequence, into, once)
        size, expected = as_bytes(payload).nbytes, expected_bytes(self._endpoint, type(request))
        if size != expected:
            answer(Refused(wrong_size(type(request), size, expected)), None)
            return
        self._endpoint.submit(request, answer, payload)

    def _adopt(self, announced: Sequence[doorbell_pb2.Segment], descriptors: list[int]) -> None:
        """Map the segments that are new."""
        try:
            if len(announced) != len(descriptors):
                raise PeerError(f"{len(announced)} segments came with {len(descriptors)} descriptors")
            if len(self._segments) + len(descriptors) > _MOST_SEGMENTS:
                raise PeerError(f"a worker shows at most {_MOST_SEGMENTS} segments")
            for segment in announced:
                mapped = self._segments[segment.id] = Segment(descriptors.pop(0), segment.size)
                if self._for_gpu and not segment.once:
                    mapped.pin()
        except OSError as error:
            raise PeerError(f"a segment can not be mapped: {error.strerror}") from error
        finally:
            close_all(descriptors)

    def _view(self, region: doorbell_pb2.Region) -> memoryview:
        segment = self._segments.get(region.segment)
        if segment is None:
            raise PeerError(f"segment {region.segment} was never shown")
        if region.offset + region.size > segment.size:
            raise PeerError(f"bytes {region.offset} + {region.size} lie outside of a segment of {segment.size} bytes")
        return segment.view[region.offset : region.offset + region.size]

    def _answer(
        self,
        sequence: int,
        into: list[memoryview] | None,
        once: list[int],
        reply: Reply,
        payload: memoryview | None,
    ) -> None:
        """Put the bytes where they are wanted, and tell; on the thread of whoever decides, so that they are whole."""
        size = as_bytes(payload).nbytes
        if into is not None:
            reply, _ = land(reply, payload, into)
        if isinstance(reply, Refused):
            size = 0  # they did not fit
        for number in once:
            self._segments.pop(number, None)
        delivered = doorbell_pb2.Delivered(sequence=sequence, reply=wire.reply_message(reply), size=size)
        try:
            # The one who decides waits for nobody: a visitor that takes no answers has stopped, and is let go.
            send(self._socket, doorbell_pb2.Chime(delivered=delivered), flags=socket.MSG_DONTWAIT)
        except BlockingIOError:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            _log.debug("a visitor of the doorbell has gone: %s", error)
