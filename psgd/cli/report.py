"""``psgd report``: folders of runs in, a report out; no run is made."""

import dataclasses
import json
import sys
from pathlib import Path

from psgd.analysis.comparison import ComparisonFigures, Target
from psgd.analysis.comparison_words import in_text
from psgd.analysis.findings import find
from psgd.analysis.gathering import find_runs, gather
from psgd.cli.compare_grammar import parse_target
from psgd.cli.report_config import ReportConfig
from psgd.errors import ConfigurationError
from psgd.experiments.reporting import write_report
from psgd.planning import check_folder
from psgd.training.names import unknown


def run(config: ReportConfig) -> None:
    """Report as the options say.

    Raises:
        ConfigurationError: if there are no runs, they can not be compared, none has measured the target's metric, or
            nothing can be written where it is to go.
        PsgdError: if the report can not be written after all.
    """
    out = Path(config.out)
    check_folder(out)
    figures = gather(find_runs([Path(each) for each in config.runs]))
    figures = dataclasses.replace(figures, target=_target(config, figures) or figures.target)
    findings = find(figures)
    report = write_report(findings, out)
    print(json.dumps(report, allow_nan=False) if config.json else in_text(findings), flush=True)
    print(f"psgd report: the report is in {out}", file=sys.stderr, flush=True)


def _target(config: ReportConfig, figures: ComparisonFigures) -> Target | None:
    if config.target is None:
        return None
    if not figures.measured():
        raise ConfigurationError(f"target must be left out of runs without evaluations, got {config.target}")
    metric, value = parse_target(config.target)
    target = Target(metric or f"test_{figures.metric.name}", value)
    if target.measure.name not in figures.measured():
        raise unknown("target: the metric", target.measure.name, figures.measured())
    return target
