"""What comparisons of arms say, in sentences."""

from collections.abc import Sequence

from psgd.analysis.comparison import ComparisonFigures
from psgd.analysis.figure import REACHING, SAMPLES_PER_S, SAMPLES_TO_TARGET, SECONDS_TO_TARGET
from psgd.analysis.pairs import Contest, Pair
from psgd.analysis.statistics import Estimate

USELESS = 100.0
"""An interval of ratios whose ends are so many times apart says nothing."""
NEARLY_ONE = 0.095
"""Ratios so close to 1 are said with another digit."""


def times(ratio: float) -> str:
    """A ratio, with as many digits as it needs.

    Example:
        >>> times(1.8234), times(1.0432), times(0.71), times(123.4)
        ('1.8', '1.04', '0.71', '123')
    """
    if ratio >= 10:
        return f"{ratio:,.0f}"
    return f"{ratio:.2f}" if ratio < 1 + NEARLY_ONE else f"{ratio:.1f}"


def topic(contest: Contest) -> str:
    """What is compared, such as ``time to 85.00 %``."""
    if contest.figure.name in REACHING:
        return f"{contest.figure.heading.partition(' ')[0]} to {_target(contest)}"
    return contest.figure.heading


def sentence(pair: Pair) -> str:
    """What the comparison of two arms says, without a full stop."""
    if pair.seeds == 0:
        return f"{pair.a} and {pair.b} have no seed in common"
    advantage, what = pair.advantage, topic(pair.contest)
    if advantage is None:
        return f"{_having(pair, pair.a)}, {_having(pair, pair.b)}"
    if pair.seeds == 1:
        return f"{pair.a} and {pair.b}: one run each, nothing can be told in {what} ({_amount(pair, advantage)})"
    if pair.equal:
        return f"{pair.a} and {pair.b} are equal in {what}"
    if not pair.told or pair.better is None:
        return f"{pair.a} and {pair.b}: no difference can be told in {what} ({_evidence(pair, advantage)})"
    return _told(pair, advantage, pair.better, pair.other(pair.better))


def suspicion(pair: Pair) -> str:
    """What a comparison that leans to one arm gives reason to fear, without a full stop."""
    if pair.advantage is None or pair.better is None:
        return sentence(pair)
    worse, evidence = pair.other(pair.better), _evidence(pair, pair.advantage)
    return f"{worse} looks worse than {pair.better} in {topic(pair.contest)}, if not beyond doubt ({evidence})"


def risk(pair: Pair) -> str:
    """What taking the arm that looks worse may cost though no difference can be told, without a full stop."""
    if pair.advantage is None or pair.better is None or pair.leans:
        return suspicion(pair)
    worse, what = pair.other(pair.better), topic(pair.contest)
    evidence = _evidence(pair, pair.advantage)
    return f"{worse} may be worse than {pair.better} in {what}: that can neither be told nor ruled out ({evidence})"


def sentences(pairs: Sequence[Pair]) -> str:
    """The same of several comparisons in one figure that all tell of one arm that it is better."""
    first, *others = pairs
    more = (
        _against(pair, pair.advantage, pair.other(pair.better)) for pair in others if pair.advantage and pair.better
    )
    return "; ".join([sentence(first), *more])


def _told(pair: Pair, advantage: Estimate, better: str, worse: str) -> str:
    size, interval, contest = _size(pair, advantage), _interval(pair, advantage), pair.contest
    if contest.figure.name == SECONDS_TO_TARGET:
        return f"{better} reaches {_target(contest)} {size} sooner than {worse}{interval}"
    if contest.figure.name == SAMPLES_TO_TARGET:
        return f"{worse} needs {size} as many samples as {better} to reach {_target(contest)}{interval}"
    if contest.figure == SAMPLES_PER_S:
        return f"{better} makes {size} the samples/s of {worse}{interval}"
    return f"{better} ends {size} {_side(contest)} {worse} in {topic(contest)}{interval}"


def statements(figures: ComparisonFigures, pairs: Sequence[Pair]) -> list[str]:
    """For each figure one sentence: which arm leads, by how much, and from which no difference can be told."""
    names = [name for name, _, _ in figures.shown]
    contests = dict.fromkeys(pair.contest for pair in pairs)
    said = (_statement(names, [pair for pair in pairs if pair.contest == contest]) for contest in contests)
    return list(dict.fromkeys(said))  # a target that few reach is said once, not of time and samples


def _statement(names: Sequence[str], pairs: Sequence[Pair]) -> str:
    leader = leading(names, pairs)
    if leader is None:
        return f"{'; '.join(_without_leader(pairs))}."
    against = [(pair, pair.other(leader)) for pair in pairs if leader in (pair.a, pair.b)]
    told = [_against(pair, pair.advantage, other) for pair, other in against if pair.told and pair.advantage]
    open_ = [
        f"{other} ({_evidence(pair, pair.advantage)})"
        for pair, other in against
        if pair.advantage and not (pair.told or pair.equal)
    ]
    equal = [other for pair, other in against if pair.equal]
    like = f", as {'does' if len(equal) == 1 else 'do'} {', '.join(equal)}" if equal else ""
    uncounted = [_having(pair, other) for pair, other in against if pair.advantage is None and pair.seeds]
    if open_ and all(pair.seeds == 1 for pair, _ in against):
        told = [f"one run each, so nothing can be told from {', '.join(open_)}"]
    elif open_:
        told.append(f"no difference can be told from {', '.join(open_)}")
    sure = any(pair.told or pair.equal for pair, _ in against)
    return f"{_opening(pairs[0].contest, leader, sure)}{like}: {'; '.join([*told, *uncounted])}."


def leading(names: Sequence[str], pairs: Sequence[Pair]) -> str | None:
    """The arm that looks better than most others in a figure; None if nothing can be compared, or all are equal."""
    wins = {name: sum(pair.better == name for pair in pairs) for name in names}
    best = max(wins, key=lambda name: wins[name])
    return best if wins[best] else None


def _without_leader(pairs: Sequence[Pair]) -> list[str]:
    """All equal, or each arm's count once, where there is nothing else to say."""
    if len(pairs) > 1 and all(pair.equal for pair in pairs):
        return [f"all arms are equal in {topic(pairs[0].contest)}"]
    if all(pair.advantage is None and pair.seeds for pair in pairs):
        return list(dict.fromkeys(_having(pair, name) for pair in pairs for name in (pair.a, pair.b)))
    return [sentence(pair) for pair in pairs]


def _opening(contest: Contest, leader: str, sure: bool) -> str:
    """Who leads, or only seems to, as from nobody a difference can be told."""
    verb, rest = "end", f"with the best {topic(contest)}"
    if contest.figure.name == SECONDS_TO_TARGET:
        verb, rest = "reach", f"{_target(contest)} first"
    elif contest.figure.name == SAMPLES_TO_TARGET:
        verb, rest = "reach", f"{_target(contest)} with the fewest samples"
    elif contest.figure == SAMPLES_PER_S:
        verb, rest = "make", "the most samples/s"
    says = f"{verb}{'es' if verb == 'reach' else 's'}" if sure else f"seems to {verb}"
    return f"{leader} {says} {rest}"


def _against(pair: Pair, advantage: Estimate, other: str) -> str:
    """What is told of an arm behind the leader's name."""
    size, contest = _size(pair, advantage), pair.contest
    if contest.figure.name == SECONDS_TO_TARGET:
        words = f"{size} sooner than {other}"
    elif contest.figure.name == SAMPLES_TO_TARGET:
        words = f"{other} needs {size} as many"
    elif contest.figure == SAMPLES_PER_S:
        words = f"{size} those of {other}"
    else:
        words = f"{size} {_side(contest)} {other}"
    return words + _interval(pair, advantage)


def _target(contest: Contest) -> str:
    return "the target" if contest.target is None else contest.target.words


def _side(contest: Contest) -> str:
    return "above" if contest.figure.goal == "max" else "below"


def _size(pair: Pair, advantage: Estimate) -> str:
    if pair.contest.by_ratio:
        return f"{times(advantage.mean)}×"
    return pair.contest.metric.difference(advantage.mean).removeprefix("+")


def _amount(pair: Pair, advantage: Estimate) -> str:
    kind = "ratio" if pair.contest.by_ratio else "difference"
    return f"{kind} {_size(pair, advantage).removesuffix('×')}"


def _interval(pair: Pair, advantage: Estimate) -> str:
    """The interval of a difference that is told, in brackets."""
    if advantage.ci is None or advantage.ci == (advantage.mean,) * 2:
        return " (the same with every seed)"
    return f" (95 % CI {_between(pair, advantage.ci)}{'×' if pair.contest.by_ratio else ''})"


def _between(pair: Pair, ci: tuple[float, float]) -> str:
    if pair.contest.by_ratio:
        ends = [times(end) for end in ci]
        return "–".join(ends if len(set(ends)) > 1 else [f"{end:.3g}" for end in ci])
    low, high = (pair.contest.metric.difference(end).removesuffix(" points").removeprefix("+") for end in ci)
    return f"{low} to {high}"


def _evidence(pair: Pair, advantage: Estimate) -> str:
    """Why no difference can be told."""
    if pair.seeds == 1:
        return _amount(pair, advantage)
    if advantage.ci is None:
        return f"{_amount(pair, advantage)} with each of {pair.seeds} seeds, which are too few"
    if pair.contest.by_ratio and advantage.ci[1] > USELESS * advantage.ci[0]:
        return f"{_amount(pair, advantage)}, of which {pair.seeds} seeds give no interval worth the name"
    corrected = "" if pair.may_be_equal or pair.p is None else f", but p = {pair.p:.2g} after Holm's correction"
    return f"{_amount(pair, advantage)}, 95 % CI {_between(pair, advantage.ci)}{corrected}"


def _having(pair: Pair, name: str) -> str:
    """In how many of its runs an arm has the figure, where not all have it."""
    found, runs = pair.having[0 if name == pair.a else 1], pair.seeds
    if pair.contest.figure.name in REACHING:
        return f"{name} reached {_target(pair.contest)} in {out_of(found, runs)}"
    return f"{name} ended with a {topic(pair.contest)} in {out_of(found, runs)}"


def out_of(count: int, runs: int) -> str:
    """In how many of its runs an arm has got somewhere.

    Example:
        >>> out_of(0, 3), out_of(2, 3), out_of(3, 3), out_of(0, 1)
        ('none of 3 runs', '2 of 3 runs', 'all 3 runs', 'no run')
    """
    if runs == 1:
        return "its run" if count else "no run"
    if count == runs:
        return "both runs" if runs == 2 else f"all {runs} runs"
    return f"{count or 'none'} of {runs} runs"
