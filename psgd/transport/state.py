"""Whole states over any plane: the first weights into the shards, snapshots out of them."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

import torch

from psgd.core.ids import Boundary, Version
from psgd.core.layout import Layout, Part
from psgd.core.messages import Load, Loaded, Read, Refused, Reply, Request, Snapshot
from psgd.core.modes import Async, Rules
from psgd.errors import LostError
from psgd.transport.base import Connection
from psgd.transport.flat import allocate, view_bytes

AGREED_WITHIN_S = 30.0
"""A commit that was lost is sent again after a second."""


def ask(
    connection: Connection, request: Request, payload: memoryview | None = None, into: Sequence[memoryview] = ()
) -> "Future[Reply]":
    """Send a request; the future holds its reply."""
    future: Future[Reply] = Future()
    connection.submit(request, lambda reply, _payload: future.set_result(reply), payload, into)
    return future


def load_state(connections: Sequence[Connection], parts: Sequence[Part], memory: torch.Tensor) -> None:
    """Give every shard its first weights, and wait until they have them.

    Args:
        memory: (layout.bytes,) uint8, the flat space.

    Raises:
        LostError: if a shard does not take them.
    """
    flat = view_bytes(memory)
    futures = []
    for connection, part in zip(connections, parts, strict=True):
        both = bytearray(part.bytes)
        both[: part.pushed.bytes] = flat[part.pushed.start : part.pushed.stop]
        both[part.pushed.bytes :] = flat[part.frozen.start : part.frozen.stop]
        futures.append(ask(connection, Load(), payload=memoryview(both)))
    for shard, future in enumerate(futures):
        reply = future.result()
        if not isinstance(reply, Loaded):
            raise LostError(f"shard {shard} did not take its first weights: {reply}")


def read_last(
    connections: Sequence[Connection], layout: Layout, parts: Sequence[Part], rules: Rules
) -> tuple[torch.Tensor, tuple[Version, ...]]:
    """Read the end state, when no slot has an iteration left.

    In rounds the lead may have told the end while its last commit is still on the way to another shard: then the
    versions differ, and are read again.

    Returns:
        As `read_state`.

    Raises:
        LostError: if a shard does not answer, or the shards do not come to agree.
    """
    deadline = time.monotonic() + AGREED_WITHIN_S
    while True:
        memory, versions = read_state(connections, layout, parts, Boundary(0))
        if isinstance(rules.mode, Async) or len(set(versions)) == 1:
            return memory, versions
        if time.monotonic() > deadline:
            raise LostError(f"the shards ended at different versions: {', '.join(map(str, versions))}")
        time.sleep(0.05)


def read_state(
    connections: Sequence[Connection], layout: Layout, parts: Sequence[Part], boundary: Boundary, keep: bool = False
) -> tuple[torch.Tensor, tuple[Version, ...]]:
    """Read the snapshot of a boundary from every shard; waits until it is there. 0 reads the state as it is.

    Args:
        keep: it will be read again.

    Returns:
        The flat space, (layout.bytes,) uint8, and the version of each shard.

    Raises:
        LostError: if a shard does not answer, or has it no more.
    """
    memory = allocate(layout.bytes)
    futures = [
        ask(connection, Read(boundary, keep), into=both_spans(memory, part))
        for connection, part in zip(connections, parts, strict=True)
    ]
    wait_for(futures)
    versions = []
    for shard, future in enumerate(futures):
        reply = future.result()
        if not isinstance(reply, Snapshot):
            reason = reply.reason if isinstance(reply, Refused) else str(reply)
            raise LostError(f"shard {shard} gave no snapshot of boundary {boundary}: {reason}")
        versions.append(reply.version)
    return memory, tuple(versions)


def both_spans(memory: torch.Tensor, part: Part) -> tuple[memoryview, memoryview]:
    """What a shard holds of the flat space, (layout.bytes,) uint8: its pushed span, and its frozen one."""
    flat = view_bytes(memory)
    return flat[part.pushed.start : part.pushed.stop], flat[part.frozen.start : part.frozen.stop]
