"""What ``psgd compare`` can be told: all that ``psgd train`` can, and what is to differ between the runs."""

import math
from dataclasses import dataclass
from typing import Literal

from psgd.cli.compare_grammar import parse_mode, parse_optimizer, parse_rates, parse_target
from psgd.cli.options import option
from psgd.cli.train_config import TrainConfig
from psgd.cli.world_config import WorldConfig, default_of, world_options
from psgd.errors import ConfigurationError
from psgd.experiments.arms import Arm, OptimizerChoice, Scheme, check_distinct

MOST_EPOCHS = 1000
"""How long a run that has so many seconds may be where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(WorldConfig):
    """The options of ``psgd compare``.

    Raises:
        ConfigurationError: if an arm is written in another way than is known, given twice, or also said by an option
            of the single run.
    """

    optimizers: tuple[str, ...] = option(
        (),
        "Comparison",
        "what to compare: sgd:momentum=0.9,adam,... (default: --optimizer)",
        "NAME[:ARG=VALUE:...],...",
    )
    modes: tuple[str, ...] = option(
        (),
        "Comparison",
        "each in: sync, sync+1 (backups), async, async:4 (staleness); behind a slash /softsync=5 (--gather), a "
        "--correction, /local=8 (--local-steps): async:4/softsync=5/lag-lr (default: --mode)",
        "MODE,...",
    )
    lrs: tuple[str, ...] = option(
        (),
        "Comparison",
        "learning rates to try; behind NAME= those of one optimizer: adam=0.001,0.01,sgd=0.1 (default: what usually "
        "works with each of --optimizers; else --lr)",
        "[NAME=]X,...",
    )
    evaluate_every: int | None = option(
        None,
        "Length",
        "steps between evaluations (default: about a fortieth of the length; with --budget seconds at most an epoch)",
    )
    simulate: bool = option(
        False,
        "Comparison",
        "simulate all runs, in the world that the options under World describe, instead of making them",
    )
    seeds: int = option(3, "Comparison", "runs of each, with seeds from --seed on")
    budget: Literal["samples", "seconds", "target"] = option(
        "samples",
        "Comparison",
        "what each run gets: as many samples, as --epochs or --steps say; as many --seconds; or what it needs to reach "
        "--target; the length is its most then",
    )
    seconds: float | None = option(
        None,
        "Comparison",
        f"with --budget seconds: how long each run trains (at most its length, {MOST_EPOCHS} epochs if not said)",
    )
    target: str | None = option(
        None,
        "Comparison",
        "what runs are to reach, in test_accuracy (with numbers to predict test_rmse) or another metric: 0.95 or "
        "test_loss=0.1; without --budget target it is only reported when they did",
        "[METRIC=]VALUE",
    )

    def __post_init__(self) -> None:
        """Check the single run, then what differs."""
        TrainConfig.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        if self.seeds < 1:
            raise ConfigurationError(f"seeds must be >= 1, got {self.seeds}")
        if self.patience is not None:
            raise ConfigurationError(f"patience must be left out: all runs have the same budget, got {self.patience}")
        if self.plot:
            raise ConfigurationError("plot must be left out: a comparison draws pictures of its own; try psgd train")
        self._check_budget()
        for one, many in (
            ("optimizer", "optimizers"),
            ("optimizer_args", "optimizers"),
            ("mode", "modes"),
            ("staleness", "modes"),
            ("gather", "modes"),
            ("correction", "modes"),
            ("backups", "modes"),
            ("local_steps", "modes"),
            ("outer_lr", "modes"),
            ("outer_momentum", "modes"),
            ("lr", "lrs"),
            ("lr", "optimizers"),
        ):
            self._refuse_both(one, many)
        self._check_world()
        self.arms()

    def _check_world(self) -> None:
        """Only a simulation can choose its world."""
        for name in () if self.simulate else world_options():
            value = getattr(self, name)
            if value != default_of(WorldConfig, name):
                raise ConfigurationError(f"{name} must be left out without simulate, got {value}; try --simulate")

    def _check_budget(self) -> None:
        """Each budget has what it is made of, and nothing of the others."""
        for name, budget in (("until", "target"), ("max_seconds", "seconds")):
            value = getattr(self, name)
            if value is not None:
                raise ConfigurationError(
                    f"{name} must be left out: all runs have the same budget, got {value}; try --budget {budget}"
                )
        if self.target is not None:
            parse_target(self.target)
        if self.budget == "target" and self.target is None:
            raise ConfigurationError("target must be given with budget target, got none; try --target 0.95")
        if self.budget == "seconds" and self.seconds is None:
            raise ConfigurationError("seconds must be given with budget seconds, got none; try --seconds 60")
        if self.budget != "seconds" and self.seconds is not None:
            raise ConfigurationError(
                f"seconds must be left out with budget {self.budget}, got {self.seconds:g}; try --budget seconds"
            )
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"seconds must be a finite number > 0, got {self.seconds}")

    def _refuse_both(self, one: str, many: str) -> None:
        value = getattr(self, one)
        if getattr(self, many) and value != default_of(TrainConfig, one):
            remedy = "lrs" if one == "lr" else many
            world = "; psgd calibrate --world-only writes a world without it" if self.simulate else ""
            raise ConfigurationError(f"{one} must be left out with {many}, got {value}; say it with {remedy}{world}")

    def arms(self) -> tuple[Arm, ...]:
        """Each optimizer in each mode, with its learning rates.

        Raises:
            ConfigurationError: if one is written in another way than is known, or given twice.
        """
        optimizers = [parse_optimizer(text) for text in self.optimizers]
        optimizers = optimizers or [OptimizerChoice(self.optimizer, self.optimizer_args)]
        schemes = [parse_mode(text) for text in self.modes] or [
            Scheme(self.choose_mode(), self.choose_correction(), self.choose_local_steps())
        ]
        check_distinct("optimizers", [str(optimizer) for optimizer in optimizers])
        check_distinct("modes", [str(scheme) for scheme in schemes])
        rates = parse_rates(self.lrs, optimizers) if self.lrs or self.optimizers else [(self.lr,)]
        return tuple(
            Arm(optimizer, scheme, lrs) for optimizer, lrs in zip(optimizers, rates, strict=True) for scheme in schemes
        )
