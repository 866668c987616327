"""What is odd about an arm, or about all of them: nothing learned, slots unheard, stale gradients, short runs."""

import math
from collections.abc import Sequence

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric, Rate
from psgd.analysis.curves import NO_CURVE
from psgd.analysis.numbers import duration, share
from psgd.analysis.run_figures import RunFigures

UNHEARD = 0.5
"""A slot of whose iterations less is accepted than this part of what the others have is not heard as it should."""
MOST_QUIET = 3
"""So many are named one by one."""
HIGH_LAG, HIGHEST_LAG = 8.0, 32.0
"""Mean and greatest lag from which on gradients count as stale."""
RISING = 0.1
"""A curve that has gained so much of its whole gain in its last quarter has not come to its end."""
FEWEST_POINTS = 4
OVERRUN = 1.1
"""How much longer than its budget of seconds a run may take, as a multiple, without a word."""
SHORT_S = 5.0
"""Runs on real machines that are shorter tell more of how they start than of how fast they are."""


def observe(name: str, arm: ArmRuns, rate: Rate, metric: Metric) -> list[str]:
    """What is odd about the runs of an arm, each as a sentence."""
    if not rate.complete:
        return []
    runs = rate.complete
    found = [*_unlearned(runs, metric), *_unheard(runs), *_stale(runs), *_unbound(arm, runs)]
    return [f"{name}: {each}." for each in found]


def _unlearned(runs: Sequence[RunFigures], metric: Metric) -> list[str]:
    """Losses need not become NaN where a learning rate is far too high."""
    if not all(run.has_gradients and not run.diverged and _gain(run, metric) <= 0 for run in runs):
        return []
    return [f"its test {metric.name} ended no better than it was at the first evaluation: it has learned nothing since"]


def _gain(run: RunFigures, metric: Metric) -> float:
    """By how much the metric was better at the end than at first; infinite if there are too few evaluations to tell."""
    values = [value for _, _, value in run.test.get(metric.name, NO_CURVE).points]
    if len(values) < FEWEST_POINTS:
        return math.inf
    return values[-1] - values[0] if metric.goal == "max" else values[0] - values[-1]


def _unheard(runs: Sequence[RunFigures]) -> list[str]:
    """Slots whose gradients are hardly used, by what was accepted of them in all runs."""
    slots = min(len(run.heard) for run in runs)
    if slots < 2:
        return []
    accepted = [sum(run.heard[slot][1] for run in runs) for slot in range(slots)]
    finished = [sum(run.heard[slot][0] for run in runs) for slot in range(slots)]
    usual = sorted(accepted)[slots // 2]
    chance = math.sqrt(2 * math.log(slots) * usual)  # about what the greatest of so many Poisson counts is off by
    quiet = [slot for slot in range(slots) if accepted[slot] < min(UNHEARD * usual, usual - chance)]
    if len(quiet) > MOST_QUIET:
        part = share(sum(accepted[slot] for slot in quiet) / sum(accepted))
        return [f"{len(quiet)} of {slots:,} slots are hardly heard: {part} of all gradients that were used are theirs"]
    return [_quiet(slot, accepted[slot], finished[slot], sum(accepted), slots) for slot in quiet]


def _quiet(slot: int, accepted: int, finished: int, total: int, slots: int) -> str:
    part = f"{share(accepted / total)} of all gradients that were used are slot {slot}'s, instead of {share(1 / slots)}"
    if accepted < finished:
        dropped = f"{share(1 - accepted / finished)} of its own were dropped"
        return f"{part}, as {dropped}: what it draws is hardly learned from, so the data are biased"
    return f"{part}, as it is slow: what the others draw counts for more"


def _stale(runs: Sequence[RunFigures]) -> list[str]:
    mean = sum(run.measured.get("lag_mean", 0.0) for run in runs) / len(runs)
    most = max(run.measured.get("lag_max", 0.0) for run in runs)
    if mean < HIGH_LAG and most < HIGHEST_LAG:
        return []
    return [
        f"its gradients are stale, by {mean:.1f} updates in the mean and {most:.0f} at most: a bound (async:4), "
        "/lag-lr or a lower learning rate may help"
    ]


def _unbound(arm: ArmRuns, runs: Sequence[RunFigures]) -> list[str]:
    """A bound that nobody ran into is none."""
    bound, gaps = arm.about.get("staleness"), [run.figures.get("max_clock_gap") for run in runs]
    if bound is None or any(gap is None for gap in gaps):
        return []
    widest = max(gap for gap in gaps if gap is not None)
    if widest >= bound:
        return []
    return [f"its bound of {bound} made no difference: no slot ran further ahead than {widest}"]


def untimed(figures: ComparisonFigures) -> list[str]:
    """That seconds mean nothing, if they do not, as a sentence."""
    if figures.timed or not figures.runs():
        return []
    return [
        "All slots took turns in one thread (plane memory): seconds, samples/s and idle tell nothing of a cluster; try "
        "another plane, or --simulate."
    ]


def off_budget(figures: ComparisonFigures) -> list[str]:
    """Runs that had fewer seconds than they were to have, or more, each way as a sentence."""
    amount, runs = figures.budget.amount, figures.runs()
    if figures.budget.kind != "seconds" or amount is None:
        return []
    found, times = [], [run.figures["seconds"] for run in runs]
    if short := sum(each < amount for each in times):
        found.append(
            f"{short} of {len(runs)} runs came to the end of their epochs or steps before their {amount:g} s were "
            "over: raise --epochs or --steps."
        )
    if long := sum(each > OVERRUN * amount for each in times):
        most = {
            name: max(run.figures["seconds"] for run in rate.complete)
            for name, _, rate in figures.shown
            if rate.complete
        }
        told = ", ".join(f"{name} up to {duration(each)}" for name, each in most.items())
        found.append(
            f"{long} of {len(runs)} runs took longer than their {amount:g} s ({told}): they end at evaluations, which "
            "were too far apart; lower --evaluate-every."
        )
    return found


def too_short(figures: ComparisonFigures) -> list[str]:
    """Why the runs may be too short, or too bare, to tell which arm is best, each as a sentence."""
    found, metric, shown = [], figures.metric, figures.shown
    if figures.runs() and not any(run.has_gradients for run in figures.runs()):
        found.append("Nothing was trained, only timed: what an arm costs in accuracy can not be told.")
    rising = [name for name, _, rate in shown if rate.complete and all(_rises(run, metric) for run in rate.complete)]
    if rising and figures.by_target is None:
        whose = "all arms" if len(rising) == len(shown) else ", ".join(rising)
        found.append(f"The test {metric.name} of {whose} was still improving at the end: a longer run may tell more.")
    times = [run.figures.get("seconds") for run in figures.runs() if not run.simulated]
    if known := [seconds for seconds in times if seconds is not None and seconds < SHORT_S]:
        found.append(
            f"Runs took as little as {min(known):.1f} s: so short, they tell more of how processes start than of speed."
        )
    return found


def _rises(run: RunFigures, metric: Metric) -> bool:
    sign = 1 if metric.goal == "max" else -1
    values = [sign * value for _, _, value in run.test.get(metric.name, NO_CURVE).points]
    if len(values) < FEWEST_POINTS:
        return False
    best_before = max(values[: len(values) * 3 // 4])
    whole = max(values) - values[0]
    return whole > 0 and max(values) - best_before > RISING * whole
