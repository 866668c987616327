"""Fresh processes for each measurement; whatever happens to the one that started them, they end with it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from psgd.errors import LostError, PsgdError

ENDED_WITHIN_S = 20.0
"""A process that has a Ray of its own to shut down needs some seconds."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class _Failure:
    error: PsgdError


def run_together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run every call in a fresh process of its own, all at the same time, one torch thread each.

    Args:
        calls: picklable.

    Returns:
        What they return, in their order.

    Raises:
        PsgdError: what a call has raised of this kind; for all else `LostError`. The other processes are ended.
    """
    with _started(_run, calls) as children:
        results: dict[Connection, Any] = {}
        while len(results) < len(children):
            for waiting in multiprocessing.connection.wait([pipe for pipe in children if pipe not in results]):
                assert isinstance(waiting, Connection)  # sockets and handles were not asked for
                results[waiting] = _received(waiting)
        return [results[pipe] for pipe in children]


def run_alone(call: Callable[[], Any]) -> Any:
    """Run the call in a fresh process; the rest as in `run_together`."""
    return run_together([call])[0]


@contextmanager
def serving(servers: Sequence[Callable[[], AbstractContextManager[Any]]]) -> Iterator[list[Any]]:
    """Fresh processes that serve until the end of the context.

    Args:
        servers: each opens one; picklable.

    Yields:
        What each of them has yielded: where it is to be reached.

    Raises:
        PsgdError: as `run_together`.
    """
    with _started(_serve, servers) as children:
        yield [_received(pipe) for pipe in children]


def barrier(parties: int) -> Barrier:
    """A barrier for processes that are started here."""
    return _SPAWN.Barrier(parties)


@contextmanager
def _started(target: Callable[..., None], calls: Sequence[Callable[[], Any]]) -> Iterator[list[Connection]]:
    """One process a call; yields the pipes on which they answer."""
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for call in calls:
            receiver, sender = _SPAWN.Pipe(duplex=False)
            pipes.append(receiver)
            process = _SPAWN.Process(target=target, args=(call, sender), daemon=True)
            process.start()
            processes.append(process)
            sender.close()
        yield pipes
    finally:
        _end(processes)
        for pipe in pipes:
            pipe.close()


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(ENDED_WITHIN_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _received(pipe: Connection) -> Any:
    try:
        outcome = pipe.recv()
    except EOFError:
        raise LostError("a process of the measurement has died; what it had to say is above") from None
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome


# ------------------------------------------------------------------ in the child


def _run(call: Callable[[], Any], answer: Connection) -> None:
    with _reporting(answer):
        answer.send(call())


def _serve(server: Callable[[], AbstractContextManager[Any]], answer: Connection) -> None:
    with _reporting(answer), server() as address:
        answer.send(address)
        threading.Event().wait()


@contextmanager
def _reporting(answer: Connection) -> Iterator[None]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches everybody; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        yield
    except PsgdError as error:
        answer.send(_Failure(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # a Trainer has taken Ctrl-C over
    except Exception as error:
        traceback.print_exc()
        answer.send(_Failure(LostError(f"a process of the measurement has failed: {type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
