"""Which arm to take, and why: by what the comparison can tell, not by what only looks better."""

from collections.abc import Sequence
from dataclasses import dataclass

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Rate, Target
from psgd.analysis.figure import SAMPLES_PER_S, SECONDS_TO_TARGET, of_metric
from psgd.analysis.observations import observe, too_short
from psgd.analysis.pair_words import out_of, sentence, sentences, suspicion, topic
from psgd.analysis.pairs import Pair

WHY_SIMPLE = {
    True: "the simplest, whose runs can be repeated to the bit",
    False: "the simplest of them",
}
"""By whether it is repeatable."""


BEWARE = "Beware: "
"""How reasons begin that rather warn."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take.

    Args:
        mode: the arm's name; None if there is nothing to choose from.
        reasons: why, and what to beware of; one sentence each.
        words: all in one sentence.
    """

    mode: str | None
    reasons: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm that may be recommended.

    Args:
        place: where it was asked for.
    """

    name: str
    arm: ArmRuns
    rate: Rate
    place: int

    @property
    def effort(self) -> tuple[bool, bool, int, int]:
        """How much there is to it: plain sync first, then backups, then async, corrected modes last."""
        about = self.arm.about
        rounds = about.get("mode", "sync") == "sync"
        loose = bool(about.get("backups")) if rounds else about.get("staleness") is None
        return not rounds, loose, self.arm.mode.count("/"), self.place

    @property
    def repeatable(self) -> bool:
        """Whether its runs end with the same bits when they are repeated."""
        return self.arm.about.get("mode") == "sync" and not self.arm.about.get("backups")


@dataclass(frozen=True, slots=True)
class Stage:
    """What a figure has told of the arms that were still to choose from.

    Args:
        topic: the figure, in words.
        won: the comparisons by which arms are out.
        rest: those arms, if they are no longer all.
        equal: whether they all have the very same with every seed.
    """

    topic: str
    won: Sequence[Pair]
    rest: Sequence[str]
    equal: bool


def recommend(figures: ComparisonFigures, pairs: Sequence[Pair]) -> Recommendation:
    """Choose by the kind of budget.

    A target: who reaches it first; else: whose final test metric is the best, then who reaches the target first. Where
    no difference can be told: the one with the most samples/s, and of equals the simplest. In the final test metric an
    arm is out already when it looks worse than chance makes it, all comparisons left aside: nobody should have to
    prove a loss to be spared it.

    Args:
        pairs: of all arms, as `psgd.analysis.pairs.compare_arms` makes them.
    """
    everybody = [Candidate(name, arm, rate, place) for place, (name, arm, rate) in enumerate(figures.shown)]
    ran = [each for each in everybody if each.rate.complete]
    if len(ran) < 2:
        return Recommendation(None, (), "There are no two arms to choose from.")
    if all(each.rate.diverged == len(each.rate.complete) for each in ran):
        return Recommendation(None, (), "All runs have diverged: there is none to take; try lower learning rates.")
    candidates, reasons = _sound(ran)
    if all(pair.seeds < 2 for pair in pairs):
        if figures.by_target is not None:  # what did not get there is no answer, be it chance or not
            candidates = _reliable(candidates, figures.by_target, reasons)
        chosen = min(candidates, key=lambda each: each.effort)
        basis = "one run each" if len(figures.seeds) == 1 else "less than two seeds that both have"
        reasons.append(f"With {basis} nothing can be told, so it is {WHY_SIMPLE[chosen.repeatable]}")
    else:
        chosen = _choose(figures, candidates, pairs, reasons)
    reasons += _beware(figures, chosen, pairs)
    whole = tuple(f"{each.removesuffix('.')}." for each in reasons)
    return Recommendation(chosen.name, whole, f"Take {chosen.name}. {' '.join(whole)}")


def _sound(ran: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """Arms of which no run has diverged, if there are any."""
    sound = [each for each in ran if not each.rate.diverged]
    if not sound:
        return list(ran), ["Some runs of every arm have diverged"]
    spoilt = [each.name for each in ran if each.rate.diverged]
    return sound, [f"Runs of {' and '.join(spoilt)} have diverged"] if spoilt else []


def _choose(
    figures: ComparisonFigures, candidates: list[Candidate], pairs: Sequence[Pair], reasons: list[str]
) -> Candidate:
    """One figure after another leaves those that are not told to be worse; adds why."""
    told, stages, end = False, list[Stage](), of_metric(figures.metric, "test").name
    for figure in _order(figures):
        if figure == SECONDS_TO_TARGET and figures.target is not None:
            sure = _reliable(candidates, figures.target, reasons)
            candidates, told = sure, told or len(sure) < len(candidates)
        names = [each.name for each in candidates]
        among = [
            pair
            for pair in pairs
            if pair.contest.figure.name == figure and {pair.a, pair.b} <= {*names} and any(pair.having)
        ]
        won = [pair for pair in among if pair.told or (figure == end and pair.leans)]
        beaten = {pair.other(pair.better) for pair in won if pair.better is not None}
        if among and len(beaten) < len(names):  # in a circle everybody is beaten, which tells nothing
            candidates, told = [each for each in candidates if each.name not in beaten], told or bool(beaten)
            rest = names if len(names) < len(figures.shown) else []
            equal = all(pair.equal for pair in among)
            stages.append(Stage(topic(among[0].contest), won, rest, equal))
    chosen = min(candidates, key=lambda each: each.effort)
    for stage in stages:
        reasons += _why(stage, chosen.name)
    if len(candidates) > 1:
        others = ", ".join(each.name for each in candidates if each is not chosen)
        hope = "" if told or all(stage.equal for stage in stages) else "; more seeds may tell more"
        reasons.append(f"{chosen.name} can not be told from {others}, and is {WHY_SIMPLE[chosen.repeatable]}{hope}")
    return chosen


def _why(stage: Stage, chosen: str) -> list[str]:
    """What a figure has told: for each arm that is out by it, whom it is worse than, the chosen one if it can be."""
    won = stage.won
    if not won:
        if stage.equal:
            return [f"{_listed(stage.rest) if stage.rest else 'All'} are equal in {stage.topic}"]
        between = f" between {_listed(stage.rest)}" if stage.rest else ""
        return [f"No difference can be told{between} in {stage.topic}"]
    beaten = dict.fromkeys(pair.other(pair.better) for pair in won if pair.better is not None)
    against = [[pair for pair in won if name in (pair.a, pair.b) and pair.better != name] for name in beaten]
    telling = [min(pairs, key=lambda pair: (not pair.told, pair.better != chosen)) for pairs in against]
    own = [pair for pair in telling if pair.better == chosen and pair.told]
    rest = [sentence(pair) if pair.told else suspicion(pair) for pair in telling if pair not in own]
    return [*([sentences(own)] if own else []), *rest]


def _listed(names: Sequence[str]) -> str:
    """Two names or more."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _order(figures: ComparisonFigures) -> tuple[str, ...]:
    end = of_metric(figures.metric, "test").name
    first = (SECONDS_TO_TARGET, end) if figures.by_target is not None else (end, SECONDS_TO_TARGET)
    return (*first, SAMPLES_PER_S.name)


def _reliable(candidates: list[Candidate], target: Target, reasons: list[str]) -> list[Candidate]:
    """Those that have reached the target in every run, if there are any."""
    counts = {each.name: (len(each.rate.reached(target)), len(each.rate.complete)) for each in candidates}
    sure = [each for each in candidates if counts[each.name][0] == counts[each.name][1]]
    if not sure:
        some = any(count for count, _ in counts.values())
        reasons.append(f"No arm has reached {target.words} in {'all' if some else 'any'} of its runs")
        return candidates
    reasons += [
        f"{name} has reached {target.words} in {out_of(count, runs)}"
        for name, (count, runs) in counts.items()
        if count < runs
    ]
    return sure


def _beware(figures: ComparisonFigures, chosen: Candidate, pairs: Sequence[Pair]) -> list[str]:
    """What the choice may cost, and what speaks against believing in it."""
    end = of_metric(figures.metric, "test").name
    worse = [sentence(pair) for pair in pairs if pair.contest.figure.name == end and pair.worse(chosen.name)]
    odd = observe(chosen.name, chosen.arm, chosen.rate, figures.metric)
    return [f"{BEWARE}{each}" for each in (*worse, *odd, *too_short(figures))]
