"""A comparison in words: its tables for the terminal and for Markdown, what they tell, and what to take."""

import textwrap
from collections.abc import Sequence

from psgd.analysis.comparison import ComparisonFigures, Rate
from psgd.analysis.comparison_table import arms_table, metric_cell
from psgd.analysis.figure import KINDS
from psgd.analysis.findings import Findings
from psgd.analysis.pair_words import statements
from psgd.analysis.tables import Row, as_markdown, as_text

TERMINAL, PAGE = 120, 10_000
"""Widths in characters: a page scrolls."""
NAMING = ("optimizer", "mode")
"""Headings of columns of words, not numbers."""


def best_table(figures: ComparisonFigures, width: int = PAGE) -> list[list[Row]]:
    """A row an arm, at its best learning rate, in pieces of a width; the first row of each is the heading."""
    return arms_table(figures).rows(width)


def rates_table(figures: ComparisonFigures) -> list[Row]:
    """A row an arm and learning rate; the first row is the heading."""
    metric = figures.metric
    return [
        ("optimizer", "mode", "lr", *(f"{kind} {metric.name}" for kind in KINDS), "diverged"),
        *(
            (
                arm.optimizer,
                arm.mode,
                f"{rate.lr:g}",
                *(metric_cell(rate, metric, kind) for kind in KINDS),
                _diverged(rate),
            )
            for arm in figures.arms
            for rate in arm.rates
        ),
    ]


def _diverged(rate: Rate) -> str:
    return f"{rate.diverged} of {len(rate.complete)}"


def in_text(findings: Findings) -> str:
    """What a terminal shows: the table, every learning rate where several were tried, what follows, the notes."""
    figures = findings.figures
    tables = [*best_table(figures, TERMINAL), *([rates_table(figures)] if figures.searched else [])]
    sections = [lines for _, lines in _sections(findings) if lines]
    return "\n\n".join(
        [*(as_text(rows, _words(rows)) for rows in tables), *("\n".join(map(_wrapped, lines)) for lines in sections)]
    )


def in_markdown(findings: Findings, pictures: Sequence[str]) -> str:
    """The same as a page.

    Args:
        pictures: the names of files beside it.
    """
    figures = findings.figures
    parts = [f"# {figures.title}", *(as_markdown(rows, _words(rows)) for rows in best_table(figures))]
    for heading, lines in _sections(findings):
        parts += (
            [f"## {heading}", "\n".join(f"- {line.removeprefix(f'{heading}: ')}" for line in lines)] if lines else []
        )
    parts += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    if figures.searched:
        rates = rates_table(figures)
        parts += ["## Every learning rate", as_markdown(rates, _words(rates))]
    return "\n\n".join([*parts, _versions(figures)]) + "\n"


def _sections(findings: Findings) -> list[tuple[str, list[str]]]:
    """What follows from the table: heading and lines."""
    figures, advice, conditions = findings.figures, findings.advice, findings.conditions
    common = [f"{heading} {value}" for heading, value in arms_table(figures).common]
    taken = [f"Take {advice.mode}.", *advice.reasons] if advice.mode else [advice.words]
    equal = [f"Equal for all: {' '.join(conditions.equal)}"] if len(figures.arms) > 1 and conditions.equal else []
    return [
        ("The same for all", [f"The same for all: {', '.join(common)}."] if common else []),
        ("What can be told", statements(figures, findings.pairs) if findings.pairs else []),
        ("Which one to take", taken if len(figures.arms) > 1 else []),
        ("Equal conditions", equal),
        ("Notes", list(findings.notes)),
    ]


def _wrapped(line: str) -> str:
    """Lines of the terminal's width; a number and its percent sign stay together."""
    kept = line.replace(" %", "\u00a0%")
    filled = textwrap.fill(kept, TERMINAL, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return filled.replace("\u00a0", " ")


def _words(rows: Sequence[Row]) -> set[int]:
    """The columns that hold words."""
    return {place for place, heading in enumerate(rows[0]) if heading in NAMING}


def _versions(figures: ComparisonFigures) -> str:
    found = [", ".join(f"{name} {version}" for name, version in each.items()) for each in figures.versions]
    return f"Made with {'; and with '.join(found) or 'nothing yet'}."
