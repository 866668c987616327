"""What ``psgd compare`` can be told: all that ``psgd train`` can, and what is to differ between the runs."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from psgd.cli.compare_grammar import parse_mode, parse_optimizer, parse_rates
from psgd.cli.options import option
from psgd.cli.train_config import TrainConfig
from psgd.errors import ConfigurationError
from psgd.experiments.arms import Arm, OptimizerChoice, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(TrainConfig):
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
        "each in: sync, sync+1 (backups), async, async:4 (staleness); behind a slash /softsync=5 (--gather) and a "
        "--correction: async:4/softsync=5/lag-lr (default: --mode)",
        "MODE,...",
    )
    lrs: tuple[str, ...] = option(
        (),
        "Comparison",
        "learning rates to try; behind NAME= those of one optimizer: adam=0.001,0.01,sgd=0.1 (default: what usually "
        "works with each of --optimizers; else --lr)",
        "[NAME=]X,...",
    )
    seeds: int = option(3, "Comparison", "runs of each, with seeds from --seed on")

    def __post_init__(self) -> None:
        """Check the single run, then what differs."""
        TrainConfig.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        if self.seeds < 1:
            raise ConfigurationError(f"seeds must be >= 1, got {self.seeds}")
        if self.patience is not None:
            raise ConfigurationError(f"patience must be left out: all runs have the same budget, got {self.patience}")
        if self.plot:
            raise ConfigurationError("plot must be left out: a comparison draws pictures of its own; try psgd train")
        for one, many in (
            ("optimizer", "optimizers"),
            ("optimizer_args", "optimizers"),
            ("mode", "modes"),
            ("staleness", "modes"),
            ("gather", "modes"),
            ("correction", "modes"),
            ("backups", "modes"),
            ("lr", "lrs"),
            ("lr", "optimizers"),
        ):
            self._refuse_both(one, many)
        self.arms()

    def _refuse_both(self, one: str, many: str) -> None:
        value = getattr(self, one)
        if getattr(self, many) and value != _default(one):
            remedy = "lrs" if one == "lr" else many
            raise ConfigurationError(f"{one} must be left out with {many}, got {value}; say it with {remedy}")

    def arms(self) -> tuple[Arm, ...]:
        """Each optimizer in each mode, with its learning rates.

        Raises:
            ConfigurationError: if one is written in another way than is known.
        """
        optimizers = [parse_optimizer(text) for text in self.optimizers]
        optimizers = optimizers or [OptimizerChoice(self.optimizer, self.optimizer_args)]
        schemes = [parse_mode(text) for text in self.modes] or [Scheme(self.choose_mode(), self.choose_correction())]
        rates = parse_rates(self.lrs, optimizers) if self.lrs or self.optimizers else [(self.lr,)]
        return tuple(
            Arm(optimizer, scheme, lrs) for optimizer, lrs in zip(optimizers, rates, strict=True) for scheme in schemes
        )


def _default(name: str) -> Any:
    field = next(field for field in dataclasses.fields(TrainConfig) if field.name == name)
    return {} if field.default is dataclasses.MISSING else field.default
