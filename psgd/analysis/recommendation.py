"""Which arm to take, and why: by what the comparison can tell, not by what only looks better."""

from collections.abc import Sequence
from dataclasses import dataclass

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric, Rate, Target
from psgd.analysis.figure import REACHING, SAMPLES_PER_S, SAMPLES_TO_TARGET, SECONDS_TO_TARGET, of_metric
from psgd.analysis.observations import observe, off_budget, too_short, untimed
from psgd.analysis.pair_words import out_of, risk, sentence, sentences, suspicion, topic
from psgd.analysis.pairs import Pair
from psgd.analysis.statistics import SIGNIFICANT, compare_counts

WHY_SIMPLE = {
    True: "the simplest, whose runs can be repeated to the bit",
    False: "the simplest of them",
}
"""By whether it is repeatable."""

BEWARE = "Beware: "
"""How reasons begin that rather warn."""
MATTERS = 0.01
"""A loss at the end that may be larger than this part of the metric is worth a word."""


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
    """An arm that may be recommended."""

    name: str
    arm: ArmRuns
    rate: Rate

    @property
    def effort(self) -> tuple[bool, bool, int]:
        """How much there is to it: plain sync first, then backups, then async, corrected modes last."""
        about = self.arm.about
        rounds = about.get("mode", "sync") == "sync"
        loose = bool(about.get("backups")) if rounds else about.get("staleness") is None
        return not rounds, loose, self.arm.mode.count("/")

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


def recommend(figures: ComparisonFigures, pairs: Sequence[Pair], differing: Sequence[str] = ()) -> Recommendation:
    """Choose by the kind of budget.

    A target: who reaches it first; else: whose final test metric is the best, then who reaches the target first. Where
    no difference can be told: the one with the most samples/s, and of equals the simplest. In the final test metric an
    arm is out already when it looks worse than chance makes it, all comparisons left aside: nobody should have to
    prove a loss to be spared it. Where seconds are not those of a cluster, samples to the target count in their place.
    From one run each nothing follows.

    Args:
        pairs: of all arms, as `psgd.analysis.pairs.compare_arms` makes them.
        differing: in what conditions were not equal, one sentence each.
    """
    ran = [Candidate(name, arm, rate) for name, arm, rate in figures.shown if rate.complete]
    if len(ran) < 2:
        return Recommendation(None, (), "There are no two arms to choose from.")
    if not any(each.rate.sound for each in ran):
        return Recommendation(None, (), "All runs have diverged: there is none to take; try lower learning rates.")
    if all(pair.seeds < 2 for pair in pairs):
        basis = "one run each" if len(figures.seeds) == 1 else "less than two seeds that both arms have"
        return Recommendation(None, (), f"From {basis} nothing can be told: more seeds are needed, three at least.")
    reasons: list[str] = []
    candidates = _sound(_tried(ran, pairs, reasons), reasons)
    chosen = _choose(figures, candidates, pairs, reasons)
    reasons += (f"{BEWARE}{each}" for each in (*_cautions(figures, chosen, ran, pairs), *differing))
    whole = tuple(f"{each.removesuffix('.')}." for each in reasons)
    return Recommendation(chosen.name, whole, f"Take {chosen.name}. {' '.join(whole)}")


def _tried(ran: Sequence[Candidate], pairs: Sequence[Pair], reasons: list[str]) -> list[Candidate]:
    """Arms that have two seeds or more in common with another."""
    known = {name for pair in pairs if pair.seeds > 1 for name in (pair.a, pair.b)}
    for each in ran:
        if each.name not in known:
            reasons.append(f"{each.name} has too few runs to tell anything of it: {_count(each)}")
    return [each for each in ran if each.name in known]


def _count(candidate: Candidate) -> str:
    return f"{len(candidate.rate.complete)} of {len(candidate.rate.runs)}"


def _sound(candidates: Sequence[Candidate], reasons: list[str]) -> list[Candidate]:
    """Arms of which no run has diverged, or if there are none, those of which the fewest have."""
    shares = {each.name: each.rate.diverged / len(each.rate.complete) for each in candidates}
    least = min(shares.values())
    sound = [each for each in candidates if shares[each.name] == least]
    if least > 0:
        fewest = f", the fewest of {_listed([each.name for each in sound])}" if len(sound) < len(candidates) else ""
        reasons.append(f"Some runs of every arm have diverged{fewest}")
    elif spoilt := [name for name, share in shares.items() if share > 0]:
        reasons.append(f"Runs of {_listed(spoilt)} have diverged")
    return sound


def _choose(
    figures: ComparisonFigures, candidates: list[Candidate], pairs: Sequence[Pair], reasons: list[str]
) -> Candidate:
    """One figure after another leaves those that are not told to be worse; adds why."""
    told, stages, end = False, list[Stage](), of_metric(figures.metric, "test").name
    for figure in _order(figures):
        if figure in REACHING and figures.target is not None:
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
        like = [each.name for each in candidates if each.effort == chosen.effort]
        reasons.append(
            f"{chosen.name} can not be told from {others}, and is {WHY_SIMPLE[chosen.repeatable]}{hope}"
            if len(like) == 1
            else f"{chosen.name} can not be told from {others}{hope}; {_listed(like)} are equally simple, so that any "
            "of them will do"
        )
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
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _order(figures: ComparisonFigures) -> tuple[str, ...]:
    end = of_metric(figures.metric, "test").name
    reaching = SECONDS_TO_TARGET if figures.timed else SAMPLES_TO_TARGET
    first = (reaching, end) if figures.by_target is not None else (end, reaching)
    return (*first, SAMPLES_PER_S.name) if figures.timed else first


def _reliable(candidates: list[Candidate], target: Target, reasons: list[str]) -> list[Candidate]:
    """Those that have reached the target in most of their runs, if any has at all."""
    counts = {each.name: (len(each.rate.reached(target)), len(each.rate.complete)) for each in candidates}
    most = max(counts.values(), key=lambda count: count[0] / count[1])
    sure = [each for each in candidates if counts[each.name][0] * most[1] == most[0] * counts[each.name][1]]
    if most[0] < most[1]:
        reasons.append(f"No arm has reached {target.words} in {'all' if most[0] else 'any'} of its runs")
    for each in candidates:
        if each not in sure:
            count, runs = counts[each.name]
            luck = ", which may be chance" if compare_counts((count, runs), most) >= SIGNIFICANT else ""
            reasons.append(f"{each.name} has reached {target.words} in {out_of(count, runs)}{luck}")
    return sure


def _cautions(
    figures: ComparisonFigures, chosen: Candidate, ran: Sequence[Candidate], pairs: Sequence[Pair]
) -> list[str]:
    """What the choice may cost, and what speaks against believing in it."""
    end = [pair for pair in pairs if pair.contest.figure.name == of_metric(figures.metric, "test").name]
    found = [sentence(pair) for pair in end if pair.worse(chosen.name)]
    if not found and figures.by_target is None:  # what ends at the target ends alike
        found += _risk(figures.metric, chosen, end)
    found += _spoilt(figures.metric, chosen, ran)
    if figures.lost(chosen.rate):
        found.append(f"{chosen.name} has {_count(chosen)} runs: the others have failed, or were not made")
    found += observe(chosen.name, chosen.arm, chosen.rate, figures.metric)
    return [*found, *untimed(figures), *off_budget(figures), *too_short(figures)]


def _risk(metric: Metric, chosen: Candidate, pairs: Sequence[Pair]) -> list[str]:
    """The greatest loss at the end that the seeds have not ruled out, if it would be one that matters."""
    median = chosen.rate.test(metric).median
    losses = {
        pair: pair.advantage.mean if pair.advantage.ci is None else pair.advantage.ci[1]
        for pair in pairs
        if pair.advantage is not None and pair.better is not None and pair.other(pair.better) == chosen.name
    }
    if median is None or not losses:
        return []
    worst = max(losses, key=lambda pair: losses[pair])
    return [risk(worst)] if losses[worst] > MATTERS * abs(median) else []


def _spoilt(metric: Metric, chosen: Candidate, ran: Sequence[Candidate]) -> list[str]:
    """Arms that are better for the most part, had not some of their runs diverged."""
    found, sign = [], 1 if metric.goal == "max" else -1
    own = chosen.rate.test(metric).median
    for each in ran:
        theirs = each.rate.test(metric).median
        more = each.rate.diverged / len(each.rate.complete) > chosen.rate.diverged / len(chosen.rate.complete)
        if more and own is not None and theirs is not None and sign * theirs > sign * own:
            found.append(
                f"{each.name} has the better median of test {metric.name}, {metric.words(theirs)} against "
                f"{metric.words(own)}, though {each.rate.diverged} of its {len(each.rate.complete)} runs diverged: "
                "a lower learning rate may save it"
            )
    return found
