"""Bare grpcio: the same bytes between processes that do nothing else, the ceiling of any plane that is built on it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier

import grpc

from psgd.bench.case import StepCase, stamp_steps
from psgd.bench.processes import barrier, run_together, serving
from psgd.bench.times import StepTimes
from psgd.transport.base import Sizes

CHUNK = 2**20
"""Bytes of a message, as the rpc plane sends them."""

_OPTIONS = (("grpc.max_receive_message_length", 2 * CHUNK), ("grpc.use_local_subchannel_pool", 1))
_SERVICE = "psgd.bench.Raw"
_DATA = bytes(CHUNK)


def run(case: StepCase) -> StepTimes:
    """Every worker sends its gradient to all shards at once, and gets the weights back from them."""
    sizes = case.payloads()
    start = barrier(case.workers)
    with serving([partial(serve, case.workers)] * case.shards) as addresses:
        return StepTimes.of(run_together([partial(_exchange, case, addresses, sizes, start)] * case.workers))


@contextmanager
def serve(callers: int) -> Iterator[str]:
    """A server for so many callers at once that takes bytes and gives bytes; yields its address."""
    with ThreadPoolExecutor(callers) as threads:
        server = grpc.server(threads, options=_OPTIONS)
        methods = {
            "Upload": grpc.stream_unary_rpc_method_handler(_take),
            "Download": grpc.unary_stream_rpc_method_handler(_give),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


class RawConnection:
    """One channel to a server of `serve`."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._upload = self._channel.stream_unary(f"/{_SERVICE}/Upload", None, None)
        self._download = self._channel.unary_stream(f"/{_SERVICE}/Download", None, None)

    def push(self, size: int) -> None:
        """Send so many bytes."""
        self._upload(_chunks(size), wait_for_ready=True)

    def pull(self, size: int) -> None:
        """Get so many bytes."""
        for _ in self._download(str(size).encode(), wait_for_ready=True):
            pass

    def close(self) -> None:
        """Let go of the channel."""
        self._channel.close()


def _take(chunks: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
    for _ in chunks:
        pass
    return b""


def _give(size: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    return _chunks(int(size))


def _chunks(size: int) -> Iterator[bytes]:
    for start in range(0, size, CHUNK):
        yield _DATA if size - start >= CHUNK else _DATA[: size - start]


def _exchange(case: StepCase, addresses: Sequence[str], sizes: Sequence[Sizes], start: Barrier) -> tuple[float, ...]:
    connections = [RawConnection(address) for address in addresses]
    pushes, pulls = [each.push for each in sizes], [each.pull for each in sizes]
    with ThreadPoolExecutor(len(connections)) as threads:

        def step() -> None:
            list(threads.map(RawConnection.push, connections, pushes))  # all are done, or one has raised
            list(threads.map(RawConnection.pull, connections, pulls))

        start.wait()
        ends = stamp_steps(case.warmup, case.steps, step)
    for connection in connections:
        connection.close()
    return ends
