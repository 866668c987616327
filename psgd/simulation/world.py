"""The world that a simulation assumes: how long computing takes, how fast the network is, what fails."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from psgd.config import Straggler
from psgd.durations import NONE, Duration, LogNormal, Pareto, constant
from psgd.errors import ConfigurationError

MOST = 1e9
"""Of a duration's parts, thirty years in seconds, and of a factor: sums of such are numbers still."""
DURATIONS = ("compute", "latency", "service", "update", "evaluation", "downtime")
UNIT, TEN = constant(1.0), constant(10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What machines and network are like.

    Args:
        compute: forward and backward of a slot's mini-batch, before stragglers slow it.
        slots: the same for single slots that differ from the others, as (slot, duration).
        latency: of a message, one way.
        bandwidth: of each machine's link, in each direction, bytes a second.
        service: of a shard, to take in a gradient or to hand out weights.
        update: of a shard, one step of its optimizer.
        evaluation: of a snapshot, by the evaluator.
        mtbf: mean seconds between two failures of one worker, exponential; infinite: none fails.
        downtime: until a worker that failed is replaced.

    Raises:
        ConfigurationError: if a number is out of range, a duration is none, or a slot is named twice.

    Example:
        >>> from psgd.durations import parse_duration
        >>> World(compute=parse_duration("exp:50ms"), bandwidth=1.25e9).compute.mean
        0.05
    """

    compute: Duration = UNIT
    slots: tuple[tuple[int, Duration], ...] = ()
    latency: Duration = NONE
    bandwidth: float = math.inf
    service: Duration = NONE
    update: Duration = NONE
    evaluation: Duration = NONE
    mtbf: float = math.inf
    downtime: Duration = TEN

    def __post_init__(self) -> None:
        for name in ("bandwidth", "mtbf"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be > 0, got {getattr(self, name)}")
        durations = {f"compute of slot {slot}": duration for slot, duration in self.slots}
        for name, value in [*((name, getattr(self, name)) for name in DURATIONS), *durations.items()]:
            if not isinstance(value, Duration):
                raise ConfigurationError(
                    f"{name} must be a duration, such as psgd.parse_duration('50ms'), got {value!r}"
                )
            check_end(name, value)
        named = [slot for slot, _ in self.slots]
        if len(set(named)) != len(named):
            raise ConfigurationError(f"slots must name each slot once, got {named}")

    def check_slots(self, slots: int) -> None:
        """Refuse single slots that the job has not.

        Raises:
            ConfigurationError: if one is named.
        """
        for slot, _ in self.slots:
            if not 0 <= slot < slots:
                raise ConfigurationError(
                    f"slots with a compute time of their own must be < slots ({slots}), got {slot}"
                )

    def compute_of(self, slot: int) -> Duration:
        """How long a slot's mini-batch takes."""
        return dict(self.slots).get(slot, self.compute)

    def describe(self) -> dict[str, Any]:
        """The world as plain JSON; what never happens is left out."""
        plain: dict[str, Any] = {"slots": {str(slot): str(duration) for slot, duration in self.slots}}
        for name in (field.name for field in fields(self) if field.name != "slots"):
            value = getattr(self, name)
            plain[name] = str(value) if isinstance(value, Duration) else value if math.isfinite(value) else None
        return plain


def check_slowing(stragglers: Iterable[Straggler]) -> None:
    """Refuse stragglers that virtual time has no room for.

    Raises:
        ConfigurationError: if one is slowed beyond all bounds.
    """
    for each in stragglers:
        check_end("straggler delay", each.delay)
        if each.factor > MOST:
            raise ConfigurationError(f"straggler factor must be <= {MOST:g}, got {each.factor:g}")


def check_end(name: str, duration: Duration) -> None:
    """Refuse a duration whose parts last for ages, leaving tails aside: these may be so heavy that there is no mean.

    Raises:
        ConfigurationError: if one does.
    """
    for term in duration.terms:
        match term.distribution:
            case LogNormal(median=usual) | Pareto(least=usual):
                pass
            case distribution:
                usual = distribution.mean
        if usual > MOST:
            raise ConfigurationError(f"{name} must be <= {MOST:g} s, got {duration}")
