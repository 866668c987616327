"""What a reader must know to read a comparison right."""

from collections.abc import Callable, Sequence

from psgd.analysis.comparison import ArmRuns, ComparisonFigures
from psgd.analysis.conditions import Conditions
from psgd.analysis.observations import observe, off_budget, too_short, untimed
from psgd.analysis.recommendation import BEWARE, Recommendation
from psgd.analysis.run_figures import RunFigures


def notes(figures: ComparisonFigures, conditions: Conditions, advice: Recommendation) -> list[str]:
    """What a reader must know to read the table right, one sentence each; without what the advice says itself."""
    said = {reason.removeprefix(BEWARE) for reason in advice.reasons}
    found = [_basis(figures), *_virtual(figures), *figures.remarks]
    found += [f"Not equal: {words}" for words in conditions.differing if words not in said]
    if figures.searched:
        found.append(_choice(figures))
    if figures.target is not None and figures.runs():
        found.append(
            "The target counts as reached at the first evaluation that meets it: samples and seconds to it are known "
            "to within the distance of two evaluations, which intervals allow for. Seconds are those until the steps "
            "before it had finished."
        )
    if {arm.about.get("mode") for arm in figures.arms} >= {"sync", "async"}:
        found.append(
            "Asynchronous arms make an update for each gradient (softsync: for several), synchronous ones one a step."
        )
    found += [*untimed(figures), *off_budget(figures)]
    each_arm: tuple[Callable[[ComparisonFigures, ArmRuns], list[str]], ...] = (_edge, _losses, _odd)
    found += too_short(figures)
    found += [note for arm in figures.arms for find in each_arm for note in find(figures, arm)]
    return [note for note in found if note not in said]


def _basis(figures: ComparisonFigures) -> str:
    if len(figures.seeds) == 1:
        return "One run each: how much of a difference is chance can not be told; try --seeds 3."
    whole = all(None not in rate.runs for _, _, rate in figures.shown)
    same = "; all arms have the same seeds" if whole else ""
    return f"Medians over {len(figures.seeds)} seeds, with the least and the greatest{same}."


def _virtual(figures: ComparisonFigures) -> list[str]:
    runs = figures.runs()
    if not runs or not all(run.simulated for run in runs):
        return []
    return [f"The runs are simulated: seconds are virtual, of a world with compute times of {_compute(runs)}."]


def _compute(runs: Sequence[RunFigures]) -> str:
    return " or ".join(dict.fromkeys(run.settings["world"].get("compute", "unknown") for run in runs))


def _choice(figures: ComparisonFigures) -> str:
    if figures.by_target is not None:
        return "Each arm is shown at the learning rate with which most runs reach the target, and soonest."
    return (
        f"Each arm is shown at the learning rate with the best median test {figures.metric.name}, of those with which "
        "fewest runs diverged or are missing. That choice was "
        "made on the test set, as there is no validation set, so it flatters arms a little."
    )


def _edge(figures: ComparisonFigures, arm: ArmRuns) -> list[str]:
    """A best learning rate that is the last one tried is perhaps not the best."""
    lrs, best = [rate.lr for rate in arm.rates], figures.best(arm)
    if len(lrs) < 2 or best.test(figures.metric).median is None or best.lr not in (lrs[0], lrs[-1]):
        return []
    end, beyond = ("lowest", "lower") if best.lr == lrs[0] else ("highest", "higher")
    return [
        f"{figures.name(arm)}: the best learning rate is the {end} tried, {best.lr:g}: a {beyond} one may be better."
    ]


def _losses(figures: ComparisonFigures, arm: ArmRuns) -> list[str]:
    """Runs that are missing from the figures, or have spoilt them."""
    found = []
    for rate in arm.rates:
        where, missing = f"{figures.name(arm)}, lr {rate.lr:g}", figures.lost(rate)
        if rate.diverged:
            found.append(f"{where}: {rate.diverged} of {len(rate.complete)} runs diverged (loss NaN or Inf).")
        if missing:
            found.append(f"{where}: {missing} of {len(rate.runs)} runs have failed or were not made, and are left out.")
    return found


def _odd(figures: ComparisonFigures, arm: ArmRuns) -> list[str]:
    return observe(figures.name(arm), arm, figures.best(arm), figures.metric)
