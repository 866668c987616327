"""``psgd report``: folders of runs in, a report out; no run is made."""

import dataclasses
import json
import sys
from pathlib import Path

from psgd.analysis.comparison import ComparisonFigures, Target
from psgd.analysis.comparison_words import in_text
from psgd.analysis.gathering import find_runs, gather
from psgd.cli.report_config import ReportConfig
from psgd.experiments.reporting import write_report


def run(config: ReportConfig) -> None:
    """Report as the options say.

    Raises:
        ConfigurationError: if there are no runs, they can not be compared, or none has measured the target's metric.
    """
    figures = gather(find_runs([Path(each) for each in config.runs]))
    figures = dataclasses.replace(figures, target=_target(config, figures))
    out = Path(config.out)
    report = write_report(figures, out)
    print(json.dumps(report, allow_nan=False) if config.json else in_text(figures), flush=True)
    print(f"psgd report: the report is in {out}", file=sys.stderr, flush=True)


def _target(config: ReportConfig, figures: ComparisonFigures) -> Target | None:
    given = config.parse_target()
    if given is None:
        return None
    metric, value = given
    return Target(f"test_{(metric or figures.metric.name).removeprefix('test_')}", value)
