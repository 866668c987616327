"""The iterations of a run as columns of numbers, and what follows from them: times, shares, lags."""

import math
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psgd.runlog import Iteration

ACCEPTED = "accepted"

Floats = NDArray[np.float64]


class Collector:
    """Takes iterations one by one: of a long run, their numbers are all that is kept."""

    def __init__(self) -> None:
        self._columns = tuple(array("d") for _ in range(11))

    def add(self, record: Iteration) -> None:
        """Take the next one."""
        values = (
            record.time_s,
            record.slot,
            record.step,
            _or_nan(record.loss),
            record.samples,
            record.status == ACCEPTED,
            record.lag,
            _or_nan((record.inner_lr or record.lr or (None,))[0]),
            record.compute_s,
            record.wait_s,
            record.transfer_s,
        )
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)

    def columns(self) -> "Iterations":
        """All that were taken, in the order in which they were finished."""
        columns = [np.array(column, dtype=np.float64) for column in self._columns]
        order = np.argsort(columns[0], kind="stable")
        time, slot, step, loss, samples, accepted, lag, lr, compute, wait, transfer = (
            column[order] for column in columns
        )
        return Iterations(
            time_s=time,
            slot=slot.astype(np.int64),
            step=step.astype(np.int64),
            loss=loss,
            samples=samples.astype(np.int64),
            accepted=accepted.astype(np.bool_),
            lag=lag.astype(np.int64),
            lr=lr,
            compute_s=compute,
            wait_s=wait,
            transfer_s=transfer,
        )


def _or_nan(value: float | None) -> float:
    """A log has null for NaN and Inf, too."""
    return math.nan if value is None else value


@dataclass(frozen=True, slots=True, eq=False)
class Iterations:
    """A column a field of `psgd.runlog.Iteration`, a row an iteration, by time; each column is (iterations,).

    Args:
        loss: NaN where there is none.
        lr: of the first parameter group, with local steps theirs; NaN where there is none.
    """

    time_s: Floats
    slot: NDArray[np.int64]
    step: NDArray[np.int64]
    loss: Floats
    samples: NDArray[np.int64]
    accepted: NDArray[np.bool_]
    lag: NDArray[np.int64]
    lr: Floats
    compute_s: Floats
    wait_s: Floats
    transfer_s: Floats

    def __len__(self) -> int:
        return len(self.time_s)

    def step_ends(self, slots: int, rounds: bool) -> Floats:
        """When as many iterations had finished as make 1, 2, … steps, in seconds; (steps,).

        In rounds a step is finished when those that it accepted have their answers: with backups, late ones of the
        step may still come, and some never do. On arrival, any ``slots`` finished iterations are a step.
        """
        if not len(self):
            return np.empty(0)
        if not rounds:
            return self.time_s[slots - 1 :: slots]
        updated = np.zeros(int(self.step.max()) + 1, np.bool_)
        updated[self.step[self.accepted]] = True
        telling = self.accepted | ~updated[self.step]  # a step that was refused as a whole has its end, too
        ends = np.zeros(len(updated))
        np.maximum.at(ends, self.step[telling], self.time_s[telling])
        return np.maximum.accumulate(ends)

    def lags(self) -> dict[int, int]:
        """Lag to the number of accepted pushes that had it, ascending."""
        found, counts = np.unique(self.lag[self.accepted], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    def heard(self, slots: int) -> tuple[tuple[int, int], ...]:
        """Iterations that each slot has finished, and how many of them were accepted."""
        finished = np.bincount(self.slot, minlength=slots)
        accepted = np.bincount(self.slot[self.accepted], minlength=slots)
        return tuple(zip(finished.tolist(), accepted.tolist(), strict=True))

    def figures(self) -> dict[str, float]:
        """What the log's last line does not say; without what nothing tells."""
        found: dict[str, float] = {}
        compute, wait, transfer = (float(part.sum()) for part in (self.compute_s, self.wait_s, self.transfer_s))
        total, rates = compute + wait + transfer, self.lr[self.accepted]
        rates, lags = rates[np.isfinite(rates)], self.lag[self.accepted]
        if total > 0:
            found |= {f"{name}_share": part / total for name, part in _named(compute, wait, transfer)}
        if len(lags):
            found |= {"lag_mean": float(lags.mean()), "lag_max": float(lags.max())}
        if len(rates):
            found["effective_lr"] = float(rates.mean()) if np.ptp(rates) else float(rates[0])  # as it was written
        return found


def _named(compute: float, wait: float, transfer: float) -> tuple[tuple[str, float], ...]:
    return ("compute", compute), ("wait", wait), ("transfer", transfer)
