"""What simulations can be told about the world, beside all that ``psgd train`` can be told."""

import math
import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from psgd.cli.options import about, option
from psgd.cli.train_config import TrainConfig
from psgd.cli.values import Entries
from psgd.errors import ConfigurationError

BANDWIDTH = re.compile(r"(?P<number>\d+(?:\.\d+)?(?:e\d+)?)(?P<unit>[KMG]?(?:bit|B)|)")
SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig(TrainConfig):
    """The options of the world; ``psgd calibrate`` writes a file of them, for ``--config``."""

    compute: str = option(
        "1",
        "World",
        "forward and backward of a mini-batch: 1, exp:50ms, lognormal:MEDIAN:SIGMA, pareto:LEAST:ALPHA, trace:RUN; "
        "sums, and parts that are there now and then: 1+chi2:0.1+2%exp:5",
        "DURATION",
    )
    compute_of: Entries = field(
        default_factory=Entries, metadata=about("World", "the same for a single slot: 0=exp:3", "SLOT=DURATION")
    )
    latency: str = option("0", "World", "of a message, one way", "DURATION")
    bandwidth: str | None = option(
        None, "World", "of each machine's link: 10Gbit, 1.25GB (default: no limit)", "BYTES_A_SECOND"
    )
    service: str = option("0", "World", "a shard takes in a gradient, or hands out weights", "DURATION")
    update: str = option("0", "World", "a shard's optimizer makes a step", "DURATION")
    evaluation: str = option("0", "World", "the evaluator measures a snapshot", "DURATION")
    mtbf: float | None = option(
        None, "World", "mean seconds between two failures of a worker, exponential (default: none fails)"
    )
    downtime: str = option("10", "World", "until a worker that failed is replaced", "DURATION")


def world_options() -> list[str]:
    """The names of the options that make a world."""
    training = {each.name for each in fields(TrainConfig)}
    return [each.name for each in fields(WorldConfig) if each.name not in training]


def default_of(kind: type[Any], name: str) -> Any:
    """The value of an option that nobody has set."""
    found = next(each for each in fields(kind) if each.name == name)
    return found.default if found.default_factory is MISSING else found.default_factory()


def parse_bandwidth(text: str | None) -> float:
    """Bytes a second; infinite where nothing is said.

    Raises:
        ConfigurationError: if it is written in another way, or none.

    Example:
        >>> parse_bandwidth("10Gbit"), parse_bandwidth("1.25GB")
        (1250000000.0, 1250000000.0)
    """
    if text is None:
        return math.inf
    match = BANDWIDTH.fullmatch(text.strip())
    if match is None or float(match["number"]) <= 0:
        raise ConfigurationError(f"bandwidth must be a rate a second such as 10Gbit or 1.25GB, got {text!r}")
    unit = match["unit"]
    bits = unit.endswith("bit")
    return float(match["number"]) * SCALE[unit.removesuffix("bit").removesuffix("B")] / (8 if bits else 1)
