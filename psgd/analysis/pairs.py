"""Arms against each other, two by two: by how much one is better in a figure, and whether that can be told.

Runs of one seed are a pair: they start from the same weights and draw the same batches. The p of all comparisons of a
figure are corrected together (Holm): with many arms, one would look better by chance.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from psgd.analysis.comparison import ComparisonFigures, Metric, Rate, Target
from psgd.analysis.figure import SAMPLES_PER_S, TO_TARGET, Figure, of_metric
from psgd.analysis.statistics import SIGNIFICANT, Estimate, compare, compare_counts, holm


@dataclass(frozen=True, slots=True)
class Contest:
    """A figure in which arms are compared.

    Args:
        metric: by which arms are judged.
        target: what they were to reach, if anything.
    """

    figure: Figure
    metric: Metric
    target: Target | None

    @property
    def by_ratio(self) -> bool:
        """Whether it is told by ratios."""
        return self.figure.scale == "log"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms compared in one figure.

    Args:
        a: the arm that was asked for first.
        b: the other one.
        seeds: of which both have a complete run.
        having: of those, in how many a and b have the figure at all: have reached the target, have not diverged.
        estimate: mean of a − b, or geometric mean of a ÷ b; None unless all of them have the figure.
        p: after Holm's correction; None where nothing was tested. Where all runs of one arm have the figure and none
            of the other, it is that of these counts.
    """

    contest: Contest
    a: str
    b: str
    seeds: int
    having: tuple[int, int]
    estimate: Estimate | None = None
    p: float | None = None

    @property
    def ratio(self) -> float | None:
        """The geometric mean of a ÷ b; None for a figure that is told by differences."""
        return self.estimate.mean if self.estimate is not None and self.contest.by_ratio else None

    @property
    def difference(self) -> float | None:
        """The mean of a − b; None for a figure that is told by ratios."""
        return self.estimate.mean if self.estimate is not None and not self.contest.by_ratio else None

    @property
    def ci(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the one of both that there is."""
        return None if self.estimate is None else self.estimate.ci

    @property
    def all_or_none(self) -> bool:
        """Whether every run of the one arm has the figure, and none of the other."""
        return self.seeds > 0 and sorted(self.having) == [0, self.seeds]

    @property
    def told(self) -> bool:
        """Whether there is a difference that can be told from chance."""
        return self.p is not None and self.p < SIGNIFICANT and not self.may_be_equal

    @property
    def may_be_equal(self) -> bool:
        """Whether the interval holds that there is no difference."""
        nothing = 1.0 if self.contest.by_ratio else 0.0
        return self.ci is not None and self.ci[0] <= nothing <= self.ci[1]

    @property
    def better(self) -> str | None:
        """The arm that looks better, told or not; None if they are equal or can not be compared."""
        if self.all_or_none:
            return self.a if self.having[0] else self.b
        nothing = 1.0 if self.contest.by_ratio else 0.0
        if self.estimate is None or self.estimate.mean == nothing:
            return None
        return self.a if (self.estimate.mean > nothing) == (self.contest.figure.goal == "max") else self.b

    @property
    def advantage(self) -> Estimate | None:
        """How much better the better one is: a ratio of 1 or more, or a difference of 0 or more, with its interval."""
        found = self.estimate
        if found is None:
            return None
        if self.contest.by_ratio:
            turned = None if found.ci is None else (1 / found.ci[1], 1 / found.ci[0])
            return found if found.mean >= 1 else Estimate(1 / found.mean, turned, found.p)
        turned = None if found.ci is None else (-found.ci[1], -found.ci[0])
        return found if found.mean >= 0 else Estimate(-found.mean, turned, found.p)

    @property
    def equal(self) -> bool:
        """Whether both have the very same value with every seed."""
        return self.estimate is not None and self.better is None and self.ci == (self.estimate.mean,) * 2

    @property
    def leans(self) -> bool:
        """Whether its own interval holds no equality, though among so many comparisons that may be chance."""
        return not self.told and self.ci is not None and self.better is not None and not self.may_be_equal

    def worse(self, name: str) -> bool:
        """Whether this arm is told to be worse than the other."""
        return self.told and name in (self.a, self.b) and self.better == self.other(name)

    def other(self, name: str) -> str:
        """The arm that is not this one."""
        return self.b if name == self.a else self.a


def contests(figures: ComparisonFigures) -> list[Contest]:
    """The figures in which arms are compared."""
    metric, target = figures.metric, figures.target
    reaching = [] if target is None else [Contest(each, metric, target) for each in TO_TARGET]
    ends = [Contest(of_metric(metric, "test"), metric, target)] if figures.measured() else []
    return [*reaching, *ends, Contest(SAMPLES_PER_S, metric, target)]


def compare_arms(figures: ComparisonFigures) -> list[Pair]:
    """Every two arms in every figure that decides, each at the learning rate at which it is shown."""
    shown = [(name, rate) for name, _, rate in figures.shown]
    return [pair for contest in contests(figures) for pair in _family(contest, shown)]


def _family(contest: Contest, shown: Sequence[tuple[str, Rate]]) -> list[Pair]:
    """The comparisons that are corrected together."""
    pairs = [_weigh(contest, *a, *b) for a, b in itertools.combinations(shown, 2)]
    corrected = holm([pair.p for pair in pairs])
    return [replace(pair, p=p) for pair, p in zip(pairs, corrected, strict=True)]


def _weigh(contest: Contest, a: str, ours: Rate, b: str, theirs: Rate) -> Pair:
    both = [(one, other) for one, other in zip(ours.runs, theirs.runs, strict=True) if one and other]
    left = [contest.figure.of(run, contest.target) for run, _ in both]
    right = [contest.figure.of(run, contest.target) for _, run in both]
    known = [value for value in left if value is not None], [value for value in right if value is not None]
    pair = Pair(contest, a, b, len(both), (len(known[0]), len(known[1])))
    if pair.all_or_none and pair.seeds > 1:
        return replace(pair, p=compare_counts((pair.having[0], pair.seeds), (pair.having[1], pair.seeds)))
    comparable = both and pair.having == (len(both), len(both))
    if not comparable or (contest.by_ratio and min(map(min, known)) <= 0):
        return pair
    blurs = [contest.figure.blur(run, contest.target) for runs in both for run in runs]
    blur = math.hypot(*blurs) / math.sqrt(len(both))
    estimate = compare(*known, contest.figure.scale, blur)
    return replace(pair, estimate=estimate, p=estimate.p)
