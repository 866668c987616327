"""What the endpoint has been asked and how it decided, so that a request sent again is the same request.

A caller whose call broke off, or was answered `Pending`, comes back with the same operation id and finds the
decision here; the endpoint hears of it once. One entry a slot and kind of request is kept: a slot has one of a kind
under way.
"""

import threading
import weakref
from dataclasses import replace
from typing import NamedTuple

from psgd.core.messages import Pull, Push, Receipt, Reply
from psgd.transport.base import Endpoint
from psgd.transport.payload import as_bytes, copy
from psgd.transport.staging import Staging
from psgd.transport.wire import CallerRequest, OperationId


class Outcome(NamedTuple):
    """The endpoint's decision.

    Args:
        payload: the reply's.
    """

    reply: Reply
    payload: memoryview


def bare(reply: Reply) -> Reply:
    """The reply when its bytes do not come along."""
    return replace(reply, renewed=False) if isinstance(reply, Receipt) and reply.renewed else reply


class Operation:
    """A request that the endpoint has.

    Args:
        staging: where a reply's payload is copied to; None: it is read where it is, as it stays what it is until the
            caller sends its next push.
    """

    def __init__(self, identity: OperationId, staging: Staging | None) -> None:
        self.identity = identity
        self._staging = staging
        self._outcome: Outcome | None = None
        self._settled = threading.Event()

    def decide(self, reply: Reply, payload: memoryview | None) -> None:
        """The endpoint has decided; where there is staging, it wants its memory back when this returns."""
        content = as_bytes(payload)
        if self._staging is not None and content.nbytes:
            own = self._staging.take(content.nbytes)
            copy(own, content)
            content = own
        self._outcome = Outcome(reply, content)
        self._settled.set()

    def abandon(self) -> None:
        """Nobody shall wait any longer."""
        self._settled.set()

    def wait(self, timeout_s: float) -> Outcome | None:
        """The decision, or None if there is none so far."""
        self._settled.wait(timeout_s)
        return self._outcome

    def shed(self) -> None:
        """Let go of the decision's payload, which takes memory; from now on the reply comes without."""
        if self._outcome is not None:
            self._outcome = Outcome(bare(self._outcome.reply), memoryview(b""))


class Operations:
    """The operations of a shard's callers.

    Args:
        endpoint: the shard.
        staging: where replies' payloads are copied to.
        weights_stand: what is sent to a slot, with a pull or a receipt, needs no copy, see `psgd.core.modes`.
    """

    def __init__(self, endpoint: Endpoint, staging: Staging, weights_stand: bool) -> None:
        self._endpoint = endpoint
        self._staging = staging
        self._weights_stand = weights_stand
        self._lock = threading.Lock()
        self._closed = False
        self._newest: dict[tuple[type, int], Operation] = {}
        # Also the ones that newer ones have replaced: their callers wait, too.
        self._all: weakref.WeakSet[Operation] = weakref.WeakSet()

    def known(self, identity: OperationId, request: CallerRequest) -> Operation | None:
        """The operation, if it has been here."""
        with self._lock:
            return self._known(identity, request)

    def begin(self, identity: OperationId, request: CallerRequest, payload: memoryview | None = None) -> Operation:
        """Submit the request, or attach to the operation where it has been here; ``payload`` is given away."""
        with self._lock:
            operation = self._known(identity, request)
            if operation is not None:
                return operation
            stands = self._weights_stand and isinstance(request, Pull | Push)
            operation = Operation(identity, None if stands else self._staging)
            self._newest[_key(request)] = operation
            self._all.add(operation)
            if self._closed:
                operation.abandon()
        try:
            self._endpoint.submit(request, operation.decide, payload)
        except Exception:
            self.forget(operation, request)  # or everybody who asks again would wait for it
            raise
        return operation

    def forget(self, operation: Operation, request: CallerRequest) -> None:
        """Let go of an outcome that takes memory; asked again, the endpoint will read its weights again."""
        with self._lock:
            if self._newest.get(_key(request)) is operation:
                del self._newest[_key(request)]

    def close(self) -> None:
        """Wake everybody who waits, now or later."""
        with self._lock:
            self._closed = True
            for operation in self._all:
                operation.abandon()

    def _known(self, identity: OperationId, request: CallerRequest) -> Operation | None:
        operation = self._newest.get(_key(request))
        return operation if operation is not None and operation.identity == identity else None


def _key(request: CallerRequest) -> tuple[type, int]:
    return type(request), getattr(request, "slot", -1)
