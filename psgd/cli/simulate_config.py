"""What ``psgd simulate`` can be told."""

from dataclasses import dataclass
from typing import Literal

from psgd.cli.options import option
from psgd.cli.world_config import WorldConfig, default_of
from psgd.errors import ConfigurationError

OF_TRAINING = (
    *("correction", "evaluate_every", "patience", "until", "max_seconds", "plateau", "keep_best"),
    *("warm_start", "plot"),
)
"""What would change a run, or its end, and means nothing where only time is simulated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig(WorldConfig):
    """The options of ``psgd simulate``: those of the training, and of the world that it is to be in.

    Raises:
        ConfigurationError: if options contradict each other.
    """

    gradients: Literal["real", "none"] = option(
        "real", "Simulation", "real: train, at weights as stale as the world makes them; none: timing alone"
    )
    iterations: int | None = option(
        None, "Simulation", "iterations a slot, on average: another word for --steps (without gradients: 100)"
    )
    parameters: int = option(0, "Simulation", "without gradients: float32 numbers that travel, for the bandwidth")

    def __post_init__(self) -> None:
        """Refuse two lengths, and what belongs to the other kind."""
        WorldConfig.__post_init__(self)
        if self.iterations is not None and (self.steps is not None or self.epochs is not None):
            raise ConfigurationError(f"iterations must be left out with steps and epochs, got {self.iterations}")
        if self.iterations is not None and self.iterations < 1:
            raise ConfigurationError(f"iterations must be >= 1, got {self.iterations}")
        if self.gradients == "none":
            self._refuse_training()
        if self.gradients == "none" and self.epochs is not None:
            raise ConfigurationError(f"epochs must be left out without gradients, got {self.epochs}; try steps")
        if self.gradients == "real" and self.parameters:
            raise ConfigurationError(
                f"parameters must be left out with gradients, got {self.parameters}: the model's count"
            )
        if self.parameters < 0:
            raise ConfigurationError(f"parameters must be >= 0, got {self.parameters}")

    def _refuse_training(self) -> None:
        for name in OF_TRAINING:
            value = getattr(self, name)
            if value != default_of(SimulateConfig, name):
                raise ConfigurationError(
                    f"{name} must be left out without gradients, got {value}: nothing is trained; try --gradients real"
                )
        if self.wire != default_of(SimulateConfig, "wire"):
            raise ConfigurationError(
                f"wire must be left out without gradients, got {self.wire}: --parameters numbers travel as float32"
            )
