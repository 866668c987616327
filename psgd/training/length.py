"""How long a run is: from the data, and epochs or steps, to the steps of the run and those between its evaluations."""

from dataclasses import dataclass

from psgd.core.local_steps import LocalSteps, mini_batches
from psgd.data.sampler import BatchPlan
from psgd.errors import ConfigurationError


def check_length(epochs: int | None, steps: int | None) -> None:
    """Refuse a run of the built-in loop that has no end, or two.

    Raises:
        ConfigurationError: if not exactly one is given, or there would be no pass over the data.
    """
    if (epochs is None) == (steps is None):
        raise ConfigurationError(f"either epochs or steps must be given, got epochs={epochs} and steps={steps}")
    if epochs is not None and epochs < 1:
        raise ConfigurationError(f"epochs must be >= 1, got {epochs}")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of all slots over the data.

    Args:
        samples: of the data.
        local_steps: with them a step has several mini-batches a slot.

    Example:
        >>> one = Pass(samples=100, slots=2, batch_size=5, local_steps=None)
        >>> one.batches, one.steps_in(epochs=3), one.steps
        (10, 30, 10)
    """

    samples: int
    slots: int
    batch_size: int
    local_steps: LocalSteps | None

    @property
    def batches(self) -> int:
        """How many a slot draws.

        Raises:
            ConfigurationError: if the data is smaller than one step.
        """
        return BatchPlan(self.samples, self.slots, self.batch_size, seed=0).steps_per_epoch

    @property
    def steps(self) -> int:
        """Whole ones of it; at least one, though that may take several passes."""
        return max(self.batches // mini_batches(self.local_steps), 1)

    def steps_in(self, epochs: int) -> int:
        """Whole steps in so many passes.

        Raises:
            ConfigurationError: if there is none.
        """
        each, batches = mini_batches(self.local_steps), epochs * self.batches
        if batches < each:
            raise ConfigurationError(
                f"local steps must be <= the {batches} batches that a slot draws in all epochs, got {each}; lower them "
                "or batch_size, or train for more epochs"
            )
        return batches // each
