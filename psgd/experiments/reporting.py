"""From the logs of a comparison to its report: table, JSON and pictures, beside the runs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Rate
from psgd.analysis.comparison_json import as_json
from psgd.analysis.comparison_pictures import draw
from psgd.analysis.comparison_words import in_markdown
from psgd.analysis.findings import Findings
from psgd.analysis.page import PAGE_NAME, write_page
from psgd.analysis.run_figures import read_run
from psgd.core.modes import Async, Sync
from psgd.errors import ConfigurationError, PsgdError
from psgd.experiments.arms import Arm, Comparison, Run

TABLE_NAME, REPORT_NAME = "table.md", "report.json"

log = logging.getLogger("psgd")


def read_figures(comparison: Comparison) -> ComparisonFigures:
    """Everything that the logs say.

    Raises:
        DataError: if a log is damaged.
    """
    arms = tuple(_read_arm(comparison, arm) for arm in comparison.arms)
    return ComparisonFigures(comparison.seeds, arms, comparison.budget, comparison.target)


def _read_arm(comparison: Comparison, arm: Arm) -> ArmRuns:
    rates = (
        Rate(lr, tuple(read_run(comparison.out / Run(arm, lr, seed).folder) for seed in comparison.seeds))
        for lr in sorted(arm.lrs)
    )
    mode, correction = arm.scheme.mode, arm.scheme.correction
    about = {
        "arm": str(arm),
        "optimizer": arm.optimizer.name,
        "optimizer_args": dict(arm.optimizer.args),
        "mode": mode.name,
        "staleness": mode.staleness if isinstance(mode, Async) else None,
        "gather": mode.gather if isinstance(mode, Async) else 1,
        "correction": None if correction is None else str(correction),
        "backups": mode.backups if isinstance(mode, Sync) else 0,
        "local_steps": None if arm.scheme.local_steps is None else asdict(arm.scheme.local_steps),
    }
    return ArmRuns(str(arm.optimizer), str(arm.scheme), tuple(rates), about)


def write_report(findings: Findings, out: Path) -> dict[str, Any]:
    """Write ``report.html``, ``report.json``, ``table.md`` and the pictures; without matplotlib all but the pictures.

    Args:
        out: the folder, made if it is not there.

    Returns:
        What is in ``report.json``.

    Raises:
        PsgdError: if a file can not be written; the message names it, and says that the runs are kept.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    report = as_json(findings, out)
    with _writing(out / REPORT_NAME):
        (out / REPORT_NAME).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with _writing(out / PAGE_NAME):
        write_page(report, {name: rate.complete for name, _, rate in findings.figures.shown}, out)
    try:
        with _writing(f"a picture in {out}"):
            pictures = draw(findings.figures, out)
    except ConfigurationError as error:
        log.warning("there are no pictures: %s, and run the same again", error)
        pictures = []
    with _writing(out / TABLE_NAME):
        (out / TABLE_NAME).write_text(in_markdown(findings, pictures), encoding="utf-8")
    return report


@contextmanager
def _writing(what: Path | str) -> Iterator[None]:
    """Within it a file of the report is written.

    Args:
        what: to name where the error names no file, as that of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise PsgdError(
            f"{error.filename or what} can not be written ({error.strerror or error}); the runs are kept: mend that, "
            "and psgd report, or the same command with the same --out, makes the report again"
        ) from error
