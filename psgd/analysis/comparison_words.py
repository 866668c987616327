"""A comparison in words: tables for the terminal and for Markdown, JSON for machines."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric, Rate, Spread
from psgd.analysis.run_figures import RunFigures
from psgd.analysis.tables import Row, as_markdown, as_text

WORDS = range(2)
"""The columns that name the arm; those behind them are numbers."""


def best_table(figures: ComparisonFigures) -> list[Row]:
    """A row an arm, at its best learning rate; the first row is the heading."""
    metric = figures.metric
    heading = ("optimizer", "mode", "lr", *_metric_heading(metric), "samples", "steps", "seconds", "samples/s")
    return [heading, *(_best_row(arm, metric) for arm in figures.arms)]


def _best_row(arm: ArmRuns, metric: Metric) -> Row:
    rate = arm.best(metric)
    return (
        arm.optimizer,
        arm.mode,
        f"{rate.lr:g}",
        *_metric_cells(rate, metric),
        *(_number(rate.figure(name)) for name in ("samples", "steps", "seconds", "samples_per_s")),
    )


def rates_table(figures: ComparisonFigures) -> list[Row]:
    """A row an arm and learning rate; the first row is the heading."""
    metric = figures.metric
    return [
        ("optimizer", "mode", "lr", *_metric_heading(metric), "diverged"),
        *(
            (arm.optimizer, arm.mode, f"{rate.lr:g}", *_metric_cells(rate, metric), _diverged(rate))
            for arm in figures.arms
            for rate in arm.rates
        ),
    ]


def _metric_heading(metric: Metric) -> Row:
    return (f"test {metric.name}", f"train {metric.name}")


def _metric_cells(rate: Rate, metric: Metric) -> Row:
    if rate.complete and rate.diverged * 2 > len(rate.complete):
        return ("diverged", "diverged")
    return tuple(_spread(spread, metric.words) for spread in (rate.test(metric), rate.train(metric)))


def _spread(spread: Spread, words: Callable[[float | None], str]) -> str:
    if spread.low == spread.high:
        return words(spread.median)
    return f"{words(spread.median)} ({words(spread.low).removesuffix(' %')}–{words(spread.high).removesuffix(' %')})"


def _number(spread: Spread) -> str:
    return "–" if spread.median is None else f"{spread.median:,.0f}" if spread.median >= 10 else f"{spread.median:.2g}"


def _diverged(rate: Rate) -> str:
    return f"{rate.diverged} of {len(rate.complete)}"


def in_text(figures: ComparisonFigures) -> str:
    """What a terminal shows: the table, every learning rate where several were tried, the notes."""
    tables = [
        as_text(best_table(figures), WORDS),
        *([as_text(rates_table(figures), WORDS)] if figures.searched else []),
    ]
    return "\n\n".join([*tables, "\n".join(figures.notes())])


def in_markdown(figures: ComparisonFigures, pictures: Sequence[str]) -> str:
    """The same as a page.

    Args:
        pictures: the names of files beside it.
    """
    parts = [f"# {figures.title}", as_markdown(best_table(figures), WORDS)]
    parts.append("\n".join(f"- {note}" for note in figures.notes()))
    parts += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    if figures.searched:
        parts += ["## Every learning rate", as_markdown(rates_table(figures), WORDS)]
    return "\n\n".join([*parts, _versions(figures)]) + "\n"


def _versions(figures: ComparisonFigures) -> str:
    found = [", ".join(f"{name} {version}" for name, version in each.items()) for each in _distinct_versions(figures)]
    return f"Made with {'; and with '.join(found) or 'nothing yet'}."


def _distinct_versions(figures: ComparisonFigures) -> list[dict[str, str]]:
    distinct: list[dict[str, str]] = []
    for run in figures.runs():
        if run.versions not in distinct:
            distinct.append(run.versions)
    return distinct


def as_json(figures: ComparisonFigures) -> dict[str, Any]:
    """The report for machines: ``arms`` has one entry an arm; plain JSON, None where there is no number."""
    metric = figures.metric
    return {
        "title": figures.title,
        "metric": f"test_{metric.name}",
        "goal": metric.goal,
        "lr_chosen_by": f"median test_{metric.name}, on the test set" if figures.searched else None,
        "seeds": list(figures.seeds),
        "arms": [_arm_as_json(arm, metric) for arm in figures.arms],
        "notes": figures.notes(),
        "versions": _distinct_versions(figures),
    }


def _arm_as_json(arm: ArmRuns, metric: Metric) -> dict[str, Any]:
    best = arm.best(metric)
    return {
        **arm.about,
        "lr": best.lr,
        **_rate_as_json(best, metric),
        "lrs": [{"lr": rate.lr, **_rate_as_json(rate, metric)} for rate in arm.rates],
    }


def _rate_as_json(rate: Rate, metric: Metric) -> dict[str, Any]:
    figures = ("samples", "steps", "seconds", "samples_per_s", "dropped_samples")
    loss = Metric("loss")
    return {
        f"test_{metric.name}": asdict(rate.test(metric)),
        f"train_{metric.name}": asdict(rate.train(metric)),
        **{"test_loss": asdict(rate.test(loss)), "train_loss": asdict(rate.train(loss))},
        **{name: asdict(rate.figure(name)) for name in figures},
        "diverged": rate.diverged,
        "failed": len(rate.runs) - len(rate.complete),
        "runs": [None if run is None else {"seed": run.settings["seed"], **_run_as_json(run)} for run in rate.runs],
    }


def _run_as_json(run: RunFigures) -> dict[str, Any]:
    return {
        **{f"test_{name}": value for name, value in run.final_test.items()},
        **{f"train_{name}": value for name, value in run.final_train.items()},
        "seconds": run.figures.get("seconds"),
        "diverged": run.diverged,
    }
