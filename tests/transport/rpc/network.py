"""A network that a test can break, and a server that says what a test wants."""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

from psgd.transport.rpc.channel import SERVICE


class Forwarder:
    """A TCP relay on a port of its own, whose connections can be cut and sent elsewhere.

    Args:
        target: ``host:port``; None is a host where nobody listens.
    """

    def __init__(self, target: str | None) -> None:
        self.target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def cut(self) -> None:
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):  # the other side was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self.target is None:
                near.close()
                continue
            host, port = self.target.rsplit(":", 1)
            try:
                far = socket.create_connection((host, int(port)))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets |= {near, far}
            pipes = [threading.Thread(target=self._pump, args=pair) for pair in ((near, far), (far, near))]
            self._threads += pipes
            for pipe in pipes:
                pipe.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
        with self._lock:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(source)
            source.close()


Said = bytes | tuple[bytes, ...] | grpc.StatusCode
"""A message, a stream of them, or an error."""


class ScriptedServer:
    """A gRPC server of the shard's service that gives prepared answers, in order, whatever is called."""

    def __init__(self, answers: Iterable[Said]) -> None:
        self.called: list[str] = []
        self.received: list[list[bytes]] = []
        self._answers = deque(answers)
        self._threads = ThreadPoolExecutor(4)
        self._server = grpc.server(self._threads)
        unary = {name: grpc.stream_stream_rpc_method_handler(self._method(name)) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, unary),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def _method(self, name: str):  # type: ignore[no-untyped-def]
        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            self.received.append(list(requests))
            self.called.append(name)
            said = self._answers.popleft()
            if isinstance(said, grpc.StatusCode):
                fail(context, said)
            yield from (said,) if isinstance(said, bytes) else said

        return answer


def fail(context: grpc.ServicerContext, code: grpc.StatusCode) -> NoReturn:
    context.abort(code, "as scripted")


METHODS = ("Call", "Push", "Load", "Pull", "Read", "Tell")
