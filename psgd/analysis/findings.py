"""What follows from a comparison, worked out once for whoever tells it: the page, the tables, machines."""

from dataclasses import dataclass

from psgd.analysis.comparison import ComparisonFigures
from psgd.analysis.conditions import Conditions, check_conditions
from psgd.analysis.notes import notes
from psgd.analysis.pairs import Pair, compare_arms
from psgd.analysis.recommendation import Recommendation, recommend


@dataclass(frozen=True, slots=True)
class Findings:
    """All that can be said.

    Args:
        figures: from which all else follows.
        pairs: every two arms in every figure that decides.
        conditions: what the arms have in common.
        advice: which one to take.
        notes: what a reader must know, one sentence each; without what the advice says itself.
    """

    figures: ComparisonFigures
    pairs: tuple[Pair, ...]
    conditions: Conditions
    advice: Recommendation
    notes: tuple[str, ...]


def find(figures: ComparisonFigures) -> Findings:
    """Compare the arms, and say what follows."""
    pairs, conditions = compare_arms(figures), check_conditions(figures)
    advice = recommend(figures, pairs, conditions.differing)
    return Findings(figures, tuple(pairs), conditions, advice, tuple(notes(figures, conditions, advice)))
