"""From the logs of a comparison to its report: table, JSON and pictures, beside the runs."""

import json
import logging
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Rate
from psgd.analysis.comparison_json import as_json
from psgd.analysis.comparison_pictures import draw
from psgd.analysis.comparison_words import in_markdown
from psgd.analysis.run_figures import read_run
from psgd.core.modes import Async, Sync
from psgd.errors import ConfigurationError
from psgd.experiments.arms import Arm, Comparison, Run, mode_name

TABLE_NAME, REPORT_NAME = "table.md", "report.json"

log = logging.getLogger("psgd")


def read_figures(comparison: Comparison) -> ComparisonFigures:
    """Everything that the logs say.

    Raises:
        DataError: if a log is damaged.
    """
    return ComparisonFigures(comparison.seeds, tuple(_read_arm(comparison, arm) for arm in comparison.arms))


def _read_arm(comparison: Comparison, arm: Arm) -> ArmRuns:
    rates = (
        Rate(lr, tuple(read_run(comparison.out / Run(arm, lr, seed).folder) for seed in comparison.seeds))
        for lr in sorted(arm.lrs)
    )
    mode = arm.mode
    about = {
        "arm": str(arm),
        "optimizer": arm.optimizer.name,
        "optimizer_args": dict(arm.optimizer.args),
        "mode": mode.name,
        "staleness": mode.staleness if isinstance(mode, Async) else None,
        "backups": mode.backups if isinstance(mode, Sync) else 0,
    }
    return ArmRuns(str(arm.optimizer), mode_name(mode), tuple(rates), about)


def write_report(figures: ComparisonFigures, out: Path) -> dict[str, Any]:
    """Write ``report.json``, ``table.md`` and the pictures; without matplotlib all but the pictures.

    Args:
        out: the folder, made if it is not there.

    Returns:
        What is in ``report.json``.

    Raises:
        OSError: if the disk does not take it.
    """
    out.mkdir(parents=True, exist_ok=True)
    report = as_json(figures, out)
    (out / REPORT_NAME).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    try:
        pictures = draw(figures, out)
    except ConfigurationError as error:
        log.warning("there are no pictures: %s, and run the same again", error)
        pictures = []
    (out / TABLE_NAME).write_text(in_markdown(figures, pictures), encoding="utf-8")
    return report
