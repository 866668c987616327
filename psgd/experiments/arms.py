"""What is compared: arms (an optimizer in a mode), each at several learning rates and with several seeds."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import Budget, Target
from psgd.core.corrections import Correction
from psgd.core.local_steps import LocalSteps
from psgd.core.mode_name import mode_name
from psgd.core.modes import Mode
from psgd.errors import ConfigurationError
from psgd.training.names import with_arguments

UNSAFE = re.compile(r"[^\w.=+-]+")
"""What had better not be in a folder's name."""


@dataclass(frozen=True, slots=True)
class OptimizerChoice:
    """An optimizer and its arguments, but for the learning rate.

    Args:
        name: as `psgd.training.optimizers.resolve_optimizer` takes it.
        args: its other arguments.

    Example:
        >>> str(OptimizerChoice("sgd", {"momentum": 0.9, "nesterov": True}))
        'sgd:momentum=0.9:nesterov=true'
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return with_arguments(self.name, self.args)


@dataclass(frozen=True, slots=True)
class Scheme:
    """A mode with all that belongs to it: several arguments of a `Trainer`, one word on the command line."""

    mode: Mode
    correction: Correction | None = None
    local_steps: LocalSteps | None = None

    def __str__(self) -> str:
        return mode_name(self.mode, None if self.correction is None else str(self.correction), self.local_steps)


@dataclass(frozen=True, slots=True)
class Arm:
    """An optimizer in a mode.

    Args:
        lrs: the learning rates that it is tried with.

    Raises:
        ConfigurationError: if there is no learning rate, or one twice.
    """

    optimizer: OptimizerChoice
    scheme: Scheme
    lrs: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.lrs:
            raise ConfigurationError(f"lrs must hold a learning rate for {self.optimizer}, got none")
        check_distinct("lrs", [f"{lr:g}" for lr in self.lrs])

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.scheme}"

    @property
    def folder(self) -> str:
        """Its name, fit for a folder."""
        return UNSAFE.sub("_", str(self))


@dataclass(frozen=True, slots=True)
class Run:
    """One training of a comparison.

    Args:
        seed: of the weights, the order of samples and everything random.
    """

    arm: Arm
    lr: float
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, lr {self.lr:g}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where its log goes, below the comparison's own folder: ``<arm>/<lr>/<seed>``."""
        return Path(self.arm.folder, f"{self.lr:g}", str(self.seed))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every arm at each of its learning rates with every seed; all else is equal.

    Args:
        out: the folder of all runs.
        budget: of every run.
        target: what runs are to reach, be it to end there or to have reported when; None: nothing.

    Raises:
        ConfigurationError: if there is no arm or no seed, two arms can not be told apart, or a budget lacks what it is.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    out: Path
    budget: Budget = field(default_factory=Budget)
    target: Target | None = None

    def __post_init__(self) -> None:
        if self.budget.kind == "target" and self.target is None:
            raise ConfigurationError("a comparison whose budget is a target needs one, got none")
        if not self.arms or not self.seeds:
            raise ConfigurationError(f"a comparison needs arms and seeds, got {len(self.arms)} and {len(self.seeds)}")
        check_distinct("arms", [str(arm) for arm in self.arms])
        check_distinct("folders of arms", [arm.folder for arm in self.arms])

    def runs(self) -> Iterator[Run]:
        """All of them, seed by seed: what an interrupted comparison has, it has of every arm."""
        for seed in self.seeds:
            for arm in self.arms:
                for lr in arm.lrs:
                    yield Run(arm, lr, seed)


def check_distinct(field: str, names: Sequence[str]) -> None:
    """Refuse what is named twice.

    Raises:
        ConfigurationError: if one is; the message says which.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigurationError(f"{field} must differ, got {name} {count} times")
