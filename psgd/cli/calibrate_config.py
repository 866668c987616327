"""What ``psgd calibrate`` can be told; without torch, as in `psgd.cli.train_config`."""

from dataclasses import dataclass

from psgd.cli.options import option, words
from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """The options of ``psgd calibrate``.

    Raises:
        ConfigurationError: if there is not one run.
    """

    run: tuple[str, ...] = words("folder that psgd train, compare or simulate has written, or the log in it", "RUN")
    out: str | None = option(
        None,
        "Output",
        "where the options of the world, and of the training, go, for --config (default: world.yaml beside the log)",
        "FILE",
    )
    world_only: bool = option(
        False, "Output", "leave out the options of the training, which psgd compare --simulate is to be told itself"
    )
    json: bool = option(False, "Output", "print everything as JSON, on the last line of stdout")

    def __post_init__(self) -> None:
        """Check what can be checked without the log."""
        if len(self.run) != 1:
            raise ConfigurationError(
                f"RUN must be one folder with a run.jsonl, or that file, got {', '.join(self.run) or 'none'}"
            )
