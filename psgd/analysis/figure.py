"""The figures that a run has: what they are called, which way is better, and how they are said."""

import math
from dataclasses import dataclass
from typing import Literal

from psgd.analysis.comparison import Metric, Target
from psgd.analysis.numbers import Words, count, duration, lr, share, significant, size
from psgd.analysis.run_figures import RunFigures
from psgd.analysis.statistics import Scale
from psgd.runlog import Goal


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that each run has.

    Args:
        name: in ``report.json``.
        heading: in tables.
        scale: on which it is averaged.
        words: a value of it, for people.
        goal: which way is better, as far as that can be said: a run that has none counts as the worst.
    """

    name: str
    heading: str
    scale: Scale
    words: Words
    goal: Goal = "min"

    @property
    def bounds(self) -> tuple[float, float]:
        """Between what every value lies: a share is no more than all."""
        whole = self.words == share or self.name.endswith("_accuracy")
        return (0.0, 1.0) if whole else (-math.inf, math.inf)

    def of(self, run: RunFigures, target: Target | None) -> float | None:
        """Its value in a run; None if it has none: not measured, not reached, or the end of a run that diverged."""
        if self.name in REACHING:
            reached = None if target is None else target.reached(run)
            return None if reached is None else reached.seconds if self.name == SECONDS_TO_TARGET else reached.samples
        kind, _, name = self.name.partition("_")
        if kind in ("test", "train"):
            return None if run.diverged else (run.final_test if kind == "test" else run.final_train).get(name)
        return run.figure(self.name)

    def blur(self, run: RunFigures, target: Target | None) -> float:
        """The standard deviation that a value has for how it is measured, as a part of the value.

        A target may have been reached at any time since the evaluation before the one that saw it.
        """
        reached = target.reached(run) if target is not None and self.name in REACHING else None
        if reached is None:
            return 0.0
        if self.name == SAMPLES_TO_TARGET:
            return (1 - reached.samples_before / reached.samples) / UNIFORM
        return (1 - reached.seconds_before / reached.seconds) / UNIFORM if reached.seconds else 0.0


UNIFORM = math.sqrt(12)
"""What the width of a uniform distribution is as a multiple of its standard deviation."""
REACHING = SECONDS_TO_TARGET, SAMPLES_TO_TARGET = "seconds_to_target", "samples_to_target"


def of_metric(metric: Metric, kind: Literal["test", "train"]) -> Figure:
    """The final value of a metric on the test or the training set.

    Example:
        >>> of_metric(Metric("accuracy"), "test").name
        'test_accuracy'
    """
    return Figure(f"{kind}_{metric.name}", f"{kind} {metric.name}", "linear", metric.words, metric.goal)


TO_TARGET = (
    Figure(SECONDS_TO_TARGET, "time to target", "log", duration),
    Figure(SAMPLES_TO_TARGET, "samples to target", "log", count),
)
SAMPLES_PER_S = Figure("samples_per_s", "samples/s", "log", count, "max")
PLAIN = (
    Figure("seconds", "seconds", "log", count),
    Figure("samples", "samples used", "linear", count),
    Figure("steps", "steps", "linear", count),
    Figure("updates", "updates", "linear", count),
    SAMPLES_PER_S,
    Figure("idle_share", "idle", "linear", share),
    Figure("compute_share", "compute", "linear", share),
    Figure("wait_share", "wait", "linear", share),
    Figure("transfer_share", "transfer", "linear", share),
    Figure("dropped_samples", "dropped samples", "linear", count),
    Figure("bytes", "bytes moved", "linear", size),
    Figure("lag_mean", "lag", "linear", significant),
    Figure("lag_max", "greatest lag", "linear", count),
    Figure("effective_lr", "effective lr", "linear", lr),
)


BY_NAME = {figure.name: figure for figure in (*TO_TARGET, *PLAIN)}
KINDS: tuple[Literal["test", "train"], ...] = ("test", "train")


def all_figures(metric: Metric) -> tuple[Figure, ...]:
    """Every figure, for arms that are judged by a metric."""
    measured = dict.fromkeys((metric, Metric("loss")))
    return (*TO_TARGET, *PLAIN, *(of_metric(each, kind) for each in measured for kind in KINDS))
