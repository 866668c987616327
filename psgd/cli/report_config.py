"""What ``psgd report`` can be told; without torch, as in `psgd.cli.train_config`."""

import math
from dataclasses import dataclass

from psgd.cli.options import option, words
from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """The options of ``psgd report``.

    Raises:
        ConfigurationError: if no run is given, or the target is written in another way than is known.
    """

    runs: tuple[str, ...] = words("folders that psgd train, compare or simulate have written, or that hold such", "RUN")
    target: str | None = option(
        None,
        "Report",
        "what runs were to reach: 0.85, or test_loss=0.5 (default: nothing)",
        "[METRIC=]VALUE",
    )
    out: str = option("report", "Output", "folder of the report", "DIR")
    json: bool = option(False, "Output", "print the report as JSON, on the last line of stdout")

    def __post_init__(self) -> None:
        """Check what can be checked without the logs."""
        if not self.runs:
            raise ConfigurationError("RUN must be given: folders with a run.jsonl, or that hold such folders")
        self.parse_target()

    def parse_target(self) -> tuple[str | None, float] | None:
        """The target's metric, None for the one that runs are judged by, and its value.

        Raises:
            ConfigurationError: if it is written in another way.

        Example:
            >>> ReportConfig(runs=("runs",), target="test_loss=0.5").parse_target()
            ('test_loss', 0.5)
        """
        if self.target is None:
            return None
        metric, equals, text = self.target.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (equals and not metric):
            raise ConfigurationError(f"target must be VALUE or METRIC=VALUE, such as 0.85, got {self.target!r}")
        return metric or None, value
