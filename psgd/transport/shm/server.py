"""A shard's doorbell: who rings is let in with the job's token, and served until it goes."""

import hmac
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from psgd.core.messages import Refused, Reply
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import Endpoint
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.payload import as_bytes, expected_bytes, land, wrong_size
from psgd.transport.rpc.auth import JobKey
from psgd.transport.shm.packets import Receiver, close_all, new_socket, path_of, send
from psgd.transport.shm.segment import Segment

_log = logging.getLogger(__name__)

_GREETED_WITHIN_S = 10.0
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
    """

    def __init__(
        self, endpoint: Endpoint, *, key: JobKey, slots: int, weights: tuple[Segment, int] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._slots = slots
        self._weights = weights
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
        """Let everybody go; their requests are refused."""
        with self._lock:
            self._closed = True
            visits = list(self._visits)
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
            visit = _Visit(visitor, self._endpoint, self._slots, self._gone)
            with self._lock:
                if self._closed:
                    visitor.close()
                    return
                self._visits.add(visit)
            visit.begin(partial(self._greet, visitor))

    def _gone(self, visit: "_Visit") -> None:
        with self._lock:
            self._visits.discard(visit)

    def _greet(self, visitor: socket.socket, ring: doorbell_pb2.Ring) -> None:
        """Welcome whoever shows the job's token.

        Raises:
            PeerError: if it does not.
        """
        hello = ring.hello
        if not hmac.compare_digest(hello.token.encode(), self._key.token.encode()):
            raise PeerError(f"a hello without the token of job {self._key.job}")
        if hello.job != self._key.job:
            raise PeerError(f"a hello of job {hello.job!r} at a shard of job {self._key.job!r}")
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
        self, visitor: socket.socket, endpoint: Endpoint, slots: int, gone: "Callable[[_Visit], None]"
    ) -> None:
        self._socket = visitor
        self._endpoint = endpoint
        self._slots = slots
        self._gone = gone
        self._segments: dict[int, Segment] = {}

    def begin(self, greet: Callable[[doorbell_pb2.Ring], None]) -> None:
        """Serve, on a thread of its own."""
        self._thread = threading.Thread(target=self._serve, args=(greet,), name="psgd-shm-visit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self, greet: Callable[[doorbell_pb2.Ring], None]) -> None:
        receiver = Receiver(self._socket)
        try:
            self._socket.settimeout(_GREETED_WITHIN_S)
            received = receiver.receive(doorbell_pb2.Ring)
            if received is not None:
                ring, descriptors = received
                close_all(descriptors)
                greet(ring)
                self._socket.settimeout(None)
            while received is not None and (received := receiver.receive(doorbell_pb2.Ring)) is not None:
                self._take(*received)
        except PeerError as error:
            _log.warning("a visitor of the doorbell was sent away: %s", error)
            with suppress(OSError):
                send(self._socket, doorbell_pb2.Chime(farewell=str(error)))
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
                self._endpoint.submit(wire.peer_message_of(ring.tell), _nobody_waits)
            case "submit":
                self._adopt(ring.submit, descriptors)
                self._submit(ring.submit)
            case _:
                close_all(descriptors)
                raise PeerError("expected a request or a message of another shard, got neither")

    def _submit(self, submit: doorbell_pb2.Submit) -> None:
        operation, request = wire.request_of(submit.request)
        slot = getattr(request, "slot", 0)
        if slot >= self._slots:
            raise PeerError(f"slot {slot} is none of this job, which has {self._slots}: 0 … {self._slots - 1}")
        payload = self._view(submit.payload) if submit.HasField("payload") else None
        into = None if submit.in_place else [self._view(region) for region in submit.into]
        once = [segment.id for segment in submit.segments if segment.once]
        answer = partial(self._answer, operation.sequence, into, once)
        size, expected = as_bytes(payload).nbytes, expected_bytes(self._endpoint, type(request))
        if size != expected:
            answer(Refused(wrong_size(type(request), size, expected)), None)
            return
        self._endpoint.submit(request, answer, payload)

    def _adopt(self, submit: doorbell_pb2.Submit, descriptors: list[int]) -> None:
        """Map the segments that are new."""
        try:
            if len(submit.segments) != len(descriptors):
                raise PeerError(f"{len(submit.segments)} segments came with {len(descriptors)} descriptors")
            if len(self._segments) + len(descriptors) > _MOST_SEGMENTS:
                raise PeerError(f"a worker shows at most {_MOST_SEGMENTS} segments")
            for announced in submit.segments:
                self._segments[announced.id] = Segment(descriptors.pop(0), announced.size)
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


def _nobody_waits(reply: Reply, payload: memoryview | None) -> None:
    """Messages among shards are answered by messages."""
