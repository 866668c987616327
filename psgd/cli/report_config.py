"""What ``psgd report`` can be told; without torch, as in `psgd.cli.train_config`."""

from dataclasses import dataclass

from psgd.cli.compare_grammar import parse_target
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
        if self.target is not None:
            parse_target(self.target)
