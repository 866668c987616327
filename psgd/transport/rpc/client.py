"""A party's way to a shard on another host: attempts, patience, and bytes that land where they are wanted."""

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, count

import grpc

from psgd.core.messages import Load, Pending, Pull, Push, Read, Refused, Reply, Request
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import Deliver, PushId, Upload
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.key import JobKey
from psgd.transport.payload import as_bytes, total_bytes, wrong_size
from psgd.transport.rpc.call import Call
from psgd.transport.rpc.frames import Filling, Frame, begin_frame, data_frames, request_frame
from psgd.transport.rpc.retry import Retry
from psgd.transport.rpc.stub import CallError, Stub
from psgd.transport.rpc.upload import RpcUpload
from psgd.transport.wire import OperationId

_log = logging.getLogger(__name__)

# Threads are made as requests need them: one that waited for another's thread might wait for ever.
_MOST_UNDER_WAY = 4096

# What the same call would meet again.
_FINAL = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

_Landed = tuple[Reply, memoryview | None]


class RpcConnection:
    """A connection to a shard, see `psgd.transport.base.Connection`.

    An attempt that fails is made again, as the same operation, until the shard has been silent for the patience;
    then the reply is `Refused`. An ``into`` whose request was refused may have been written in part.

    Args:
        address: the shard's server, ``host:port``.
        shard: its number, for what is said about it.
        key: the job's.
        retry: how long to try.
    """

    def __init__(self, address: str, *, shard: int, key: JobKey, retry: Retry | None = None) -> None:
        self._name = f"shard {shard} at {address}"
        self._retry = retry or Retry()
        self._caller = secrets.randbits(64)
        self._sequence = count()
        self._closed = threading.Event()
        self._control = Stub(address, key)
        self._bulk = Stub(address, key)  # a connection for bytes alone: no grant waits behind a gradient
        self._thread = threading.local()
        self._threads = ThreadPoolExecutor(_MOST_UNDER_WAY, f"psgd-rpc-{shard}", self._mark_thread)

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        """Send the request, on a thread of the connection's own; see `psgd.transport.base.Connection`.

        Raises:
            InternalError: if a number of the request can not be sent, or it is a message among shards.
        """
        call = self._call(request, deliver, as_bytes(payload), into)
        if call.payload.nbytes and not isinstance(request, Push | Load):
            deliver(self._refused(wrong_size(type(request), call.payload.nbytes, 0)), None)
            return
        self._start(call)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        """Begin a push, whose bytes leave on a stream of their own as they become final."""
        return RpcUpload(push, payload, self._run_early, self._call, self._start)

    def close(self) -> None:
        """Refuse what is under way, and wait for it unless called from within a delivery."""
        self._closed.set()
        for stub in (self._control, self._bulk):
            stub.close()
        self._threads.shutdown(wait=not getattr(self._thread, "own", False))

    def _mark_thread(self) -> None:
        self._thread.own = True

    def _call(self, request: Request, deliver: Deliver, payload: memoryview, into: Sequence[memoryview]) -> Call:
        message = wire.request_message(OperationId(self._caller, next(self._sequence)), request)
        return Call(request, message, deliver, payload, into)

    def _start(self, call: Call) -> None:
        try:
            self._threads.submit(self._carry, call)
        except RuntimeError:  # that is how an executor says that close() has come first
            call.deliver(self._refused("the connection was closed"), None)

    def _run_early(self, upload: RpcUpload) -> None:
        try:
            self._threads.submit(self._carry_early, upload)
        except RuntimeError:
            upload.end()

    # ------------------------------------------------------------------ on a thread of the connection

    def _carry_early(self, upload: RpcUpload) -> None:
        """Send what becomes ready. A push that is finished is a call like any other, after one attempt."""
        landed: _Landed = Pending(), None
        try:
            with closing(self._bulk.exchange(Push.__name__, upload.frames(), deadline_s=None)) as frames:
                reply = _head(frames)
                if upload.call is not None:
                    landed = reply, _bytes_behind(frames, reply, upload.call.into)
        except (CallError, PeerError) as error:
            _log.debug("%s: a push that began early broke off: %s", self._name, error)
        except Exception:  # a bug of ours; whoever finishes the push waits for a reply nevertheless
            _log.exception("%s: a push that began early has failed in an unforeseen way", self._name)
        call = upload.end()
        if call is not None:
            self._carry(call, landed)

    def _carry(self, call: Call, landed: _Landed | None = None) -> None:
        """Pursue a call; ``landed``: what an attempt has brought, which has sent its bytes."""
        try:
            settled = landed is not None and not isinstance(landed[0], Pending)
            reply, payload = landed if landed is not None and settled else self._pursue(call, landed is not None)
        except Exception as error:  # a bug of ours; the caller waits for a reply nevertheless
            _log.exception("%s: a call has failed in an unforeseen way", self._name)
            reply, payload = self._refused(f"the call has failed in an unforeseen way: {error!r}"), None
        try:
            call.deliver(reply, payload)
        except Exception:
            _log.exception("%s: whoever waited for %s could not take it", self._name, type(reply).__name__)

    def _pursue(self, call: Call, sent_before: bool) -> _Landed:
        """Attempt until there is a reply, or no hope of one."""
        failures, heard = 0, time.monotonic()
        while not self._closed.is_set():
            try:
                reply, payload = self._attempt(call, sent_before)
            except PeerError as error:
                return self._refused(f"malformed answer: {error}"), None
            except CallError as failure:
                if failure.code in _FINAL:
                    return self._refused(str(failure)), None
                if time.monotonic() - heard > self._retry.patience_s and not self._closed.is_set():
                    return self._given_up(failure), None
                sent_before = failure.code is not grpc.StatusCode.NOT_FOUND
                failures += 1
                self._closed.wait(self._retry.pause_s(failures))
            else:
                if not isinstance(reply, Pending):
                    return reply, payload
                sent_before, failures, heard = True, 0, time.monotonic()
        return self._refused("the connection was closed"), None

    def _attempt(self, call: Call, sent_before: bool) -> _Landed:
        if isinstance(call.request, Pull | Read):
            return self._download(call)
        if isinstance(call.request, Push) and not sent_before:
            return self._exchange(call)
        if isinstance(call.request, Load) and not sent_before:
            return self._upload(call), None
        return wire.reply_of(self._control.call(call.message, self._retry.attempt_s)), None

    def _upload(self, call: Call) -> Reply:
        deadline_s = self._retry.deadline_s(call.payload.nbytes)
        return wire.reply_of(self._bulk.upload(type(call.request).__name__, _frames_of(call), deadline_s))

    def _exchange(self, call: Call) -> _Landed:
        deadline_s = self._retry.deadline_s(call.payload.nbytes + total_bytes(call.into))
        with closing(self._bulk.exchange(type(call.request).__name__, _frames_of(call), deadline_s)) as frames:
            return _landed(frames, call.into)

    def _download(self, call: Call) -> _Landed:
        # How much comes is known where there is room for it; keepalive notices a lost shard either way.
        deadline_s = self._retry.deadline_s(total_bytes(call.into)) if call.into else None
        with closing(self._bulk.download(type(call.request).__name__, call.message, deadline_s)) as frames:
            return _landed(frames, call.into)

    # ------------------------------------------------------------------ what to say

    def _refused(self, line: str) -> Refused:
        return Refused(f"{self._name}: {line}")

    def _given_up(self, failure: CallError) -> Refused:
        return Refused(f"{self._name} has not answered for {self._retry.patience_s:g} s: {failure}")


def _frames_of(call: Call) -> Iterator[bytes]:
    """A request behind its bytes."""
    return chain((begin_frame(call.payload.nbytes),), data_frames(call.payload), (request_frame(call.message),))


def _landed(frames: Iterator[Frame], into: Sequence[memoryview]) -> _Landed:
    """Read a reply and its bytes.

    Raises:
        PeerError: if a frame is not what has to come, or there are more or fewer bytes than announced.
    """
    reply = _head(frames)
    return reply, _bytes_behind(frames, reply, into)


def _head(frames: Iterator[Frame]) -> Reply:
    head = next(frames, None)
    if not isinstance(head, shard_pb2.Reply):
        raise PeerError("an answer that does not begin with a reply")
    return wire.reply_of(head)


def _bytes_behind(frames: Iterator[Frame], reply: Reply, into: Sequence[memoryview]) -> memoryview | None:
    begin = next(frames, None)
    if begin is None:
        return None
    if not isinstance(begin, shard_pb2.Begin):
        raise PeerError("bytes whose size was not announced")
    if into and begin.size != total_bytes(into):
        raise PeerError(wrong_size(type(reply), begin.size, total_bytes(into)))
    beside = None if into else memoryview(bytearray(begin.size))
    filling = Filling(type(reply), into if beside is None else (beside,))
    for frame in frames:
        if not isinstance(frame, memoryview):
            raise PeerError("something else amid the bytes of an answer")
        filling.add(frame)
    filling.finish()
    return beside
