"""A window of every slot's time: what it did when, for the picture of the timeline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from psgd.analysis.iterations import Iterations

MOST_SLOTS = 24
"""Rows of the timeline."""
WINDOW_ITERATIONS = 24
"""Iterations of an average slot that the timeline's window holds."""

Kind = Literal["compute", "transfer", "wait"]
Segment = tuple[float, float, Kind]
"""(start, end, what the slot did), in seconds since the run's start."""

SYNC_ORDER: tuple[Kind, ...] = ("compute", "transfer", "wait")
"""At a barrier the wait ends an iteration."""
ASYNC_ORDER: tuple[Kind, ...] = ("wait", "compute", "transfer")
"""On arrival the wait for the grant, and for the slots that share the worker, comes before all else."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What slots did in a window in the middle of a run.

    The log has the sums of an iteration, not the order within it: see `SYNC_ORDER` and `ASYNC_ORDER`.

    Args:
        slots: how many the run has; ``segments`` holds evenly chosen ones if they are more than `MOST_SLOTS`.
        start_s: of the window.
        end_s: of the window.
        segments: of each slot that is shown, in order of time; they may begin before the window and end after it.
    """

    slots: int
    start_s: float
    end_s: float
    segments: Mapping[int, tuple[Segment, ...]]


def timeline_of(iterations: Iterations, slots: int, rounds: bool) -> Timeline | None:
    """The middle of the run by its iterations, without its start-up and its end; None if none has ended.

    Args:
        rounds: whether slots meet at a barrier.
    """
    if not len(iterations):
        return None
    order = SYNC_ORDER if rounds else ASYNC_ORDER
    held = min(len(iterations), WINDOW_ITERATIONS * slots)
    first = (len(iterations) - held) // 2
    began_s = iterations.time_s - iterations.compute_s - iterations.wait_s - iterations.transfer_s
    start = float(iterations.time_s[first - 1]) if first else max(0.0, float(began_s.min()))
    end = float(iterations.time_s[first + held - 1])
    shown = _evenly(np.unique(iterations.slot).tolist())
    within = np.isin(iterations.slot, shown) & (iterations.time_s > start) & (began_s < end)
    segments: dict[int, list[Segment]] = {slot: [] for slot in shown}
    for row in np.flatnonzero(within).tolist():
        before = segments[int(iterations.slot[row])]
        before += _segments(iterations, row, float(began_s[row]), before, order)
    return Timeline(slots, start, end, {slot: tuple(found) for slot, found in segments.items()})


def _segments(
    iterations: Iterations, row: int, began_s: float, before: Sequence[Segment], order: Sequence[Kind]
) -> list[Segment]:
    """An iteration ends at ``time_s``; its durations lie before that, and never over the iteration before it."""
    columns = {"compute": iterations.compute_s, "transfer": iterations.transfer_s, "wait": iterations.wait_s}
    free_from = before[-1][1] if before else -math.inf
    at = began_s
    found: list[Segment] = []
    for kind in order:
        start, at = max(at, free_from), at + float(columns[kind][row])
        if at > start:
            found.append((start, at, kind))
    return found


def _evenly(slots: Sequence[int]) -> Sequence[int]:
    if len(slots) <= MOST_SLOTS:
        return slots
    return [slots[int(index)] for index in np.linspace(0, len(slots) - 1, MOST_SLOTS).round()]
