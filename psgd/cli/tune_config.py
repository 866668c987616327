"""What ``psgd tune`` can be told: all that ``psgd train`` can, and what is to be searched."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from psgd.cli.options import about, option
from psgd.cli.search_space import parse_space
from psgd.cli.train_config import TrainConfig
from psgd.cli.values import Entries
from psgd.errors import ConfigurationError
from psgd.runlog import Goal, goal_of
from psgd.tuning.space import Range, Space

TRIALS = 16
"""How many trials to make where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig(TrainConfig):
    """The options of ``psgd tune``.

    Raises:
        ConfigurationError: if options contradict each other, or the space can not be searched so.
    """

    space: Entries = field(
        default_factory=Entries,
        metadata=about(
            "Search",
            "what to search, once for each option of psgd train or key in one: lr=log:1e-4:1e-1, "
            "optimizer_args.momentum=0,0.9, mode=sync,async; ranges are uniform, log, int or logint:LOW:HIGH",
            "NAME=DOMAIN",
        ),
    )
    search: Literal["grid", "random", "tpe", "gp"] = option(
        "random", "Search", "all points of a grid, points at random, or Bayesian: tpe, or gp (Gaussian process)"
    )
    trials: int | None = option(None, "Search", f"how many; a grid has as many as it has points (default: {TRIALS})")
    objective: str = option("test_accuracy", "Search", "metric of a trial's last evaluation that decides")
    goal: Literal["min", "max"] | None = option(
        None, "Search", "whether less or more of it is better (default: min for losses and errors, else max)"
    )
    asha: bool = option(False, "Search", "stop trials early that fall behind (successive halving)")
    grace_period: int | None = option(None, "Search", "with --asha: evaluations that every trial has (default: 1)")
    reduction_factor: int | None = option(
        None, "Search", "with --asha: one of so many trials goes on, each so many times longer (default: 3)"
    )
    concurrent: int | None = option(None, "Search", "trials at the same time (default: as many as fit)")
    resume: bool = option(False, "Search", "go on with the search in --out: finished trials are kept")

    def __post_init__(self) -> None:
        """Check what all trials share, then the search."""
        TrainConfig.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        space = self.domains()
        if not space:
            raise ConfigurationError("space must name what to search, as in --space lr=log:1e-4:1e-1, got nothing")
        if self.search == "grid":
            self._check_grid(space)
        for name in ("trials", "concurrent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be >= 1, got {value}")
        for name in ("grace_period", "reduction_factor"):
            value = getattr(self, name)
            if value is not None and not self.asha:
                raise ConfigurationError(f"{name} must be left out without asha, got {value}")
        if self.resume and self.out is None:
            raise ConfigurationError("resume needs the folder of the search: give --out, got none")

    def _check_grid(self, space: Space) -> None:
        if self.trials is not None:
            raise ConfigurationError(f"trials must be left out with search grid, which makes all, got {self.trials}")
        ranges = [name for name, domain in space.items() if isinstance(domain, Range)]
        if ranges:
            raise ConfigurationError(
                f"search grid needs choices, got a range for {', '.join(ranges)}: list some, as {ranges[0]}=A,B,..., "
                "or try search random, tpe or gp"
            )

    def domains(self) -> Space:
        """What is searched.

        Raises:
            ConfigurationError: if the space names no option, or values that it can not take.
        """
        return parse_space(self.space)

    def choose_goal(self) -> Goal:
        """Whether less or more of the objective is better."""
        return self.goal or goal_of(self.objective)

    def shared(self) -> TrainConfig:
        """What all trials have in common: the options of ``psgd train``."""
        return TrainConfig(**{each.name: getattr(self, each.name) for each in dataclasses.fields(TrainConfig)})
