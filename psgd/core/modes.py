"""The two modes of training, one flag apart; each names when a gradient lands and who may start."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from psgd.core.corrections import Correction, DelayCompensation
from psgd.core.local_steps import LocalSteps, mini_batches
from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Sync:
    """A barrier: one update a step, the mean over the slots' gradients in slot order.

    Args:
        backups: how many slots a step does not wait for; their late gradients are dropped (Chen et al. 2016,
            "Revisiting Distributed Synchronous SGD").

    Raises:
        ConfigurationError: if ``backups`` is negative.

    >>> Sync(backups=1).quorum(slots=3)
    2
    """

    name: ClassVar[str] = "sync"
    backups: int = 0

    def __post_init__(self) -> None:
        if self.backups < 0:
            raise ConfigurationError(f"backups must be >= 0, got {self.backups}")

    def quorum(self, slots: int) -> int:
        """How many slots every shard has to hold before a step closes."""
        return slots - self.backups

    @property
    def weights_stand(self) -> bool:
        """Whether weights change only while every slot waits: until then they may be read where they are."""
        return self.backups == 0

    @property
    def receipt_renews(self) -> bool:
        """Whether a slot may start its next iteration from the weights at its receipt."""
        return self.backups == 0


@dataclass(frozen=True, slots=True)
class Async:
    """Every gradient is applied on arrival, or so many together as soon as the last of them arrives.

    Args:
        staleness: how many iterations a slot may run ahead of the slowest (Ho et al. 2013, "More Effective
            Distributed ML via a Stale Synchronous Parallel Parameter Server"); None means no bound.
        gather: how many gradients an update averages, whoever they come from: n-softsync of Zhang et al. 2016,
            "Staleness-aware Async-SGD for Distributed Deep Learning" (arXiv 1511.05950), equation 5, where it is
            c = ⌊slots / n⌋. None of them waits for the others: each is answered when it has been added.

    Raises:
        ConfigurationError: if ``staleness`` is negative, or ``gather`` below one.
    """

    name: ClassVar[str] = "async"
    staleness: int | None = None
    gather: int = 1

    def __post_init__(self) -> None:
        if self.gather < 1:
            raise ConfigurationError(f"gather must be >= 1, got {self.gather}")
        if self.staleness is not None and self.staleness < 0:
            raise ConfigurationError(f"staleness must be >= 0 or None, got {self.staleness}")

    @property
    def weights_stand(self) -> bool:
        """Whether weights change only while every slot waits: never, the others go on."""
        return False

    @property
    def receipt_renews(self) -> bool:
        """Whether a slot may start its next iteration from the weights at its receipt.

        With a bound it may not: while it waits for its grant, updates land that the bound promises to be seen.
        """
        return self.staleness is None


Mode = Sync | Async


@dataclass(frozen=True, slots=True)
class Rules:
    """What every party of a job must agree on.

    Args:
        mode: when a gradient lands, and who may start.
        slots: units of data parallelism, fixed for the job.
        shards: parameter-server shards.
        steps: the budget, ``steps × slots`` iterations in all; None means that the slots end by themselves.
        evaluate_every: steps between two evaluation boundaries; None means one, at the end.
        clip_norm: what the norm of the gradient that is applied may be at most, over all shards; None: anything, as
            with local steps, where slots clip.
        local_steps: what slots do between a pull and a push; None: they compute the gradient of one mini-batch.
        correction: what is done about a gradient's lag; in async mode only, None: nothing.

    Raises:
        ConfigurationError: if a number is out of range, or something belongs to the other mode.
    """

    mode: Mode
    slots: int
    shards: int
    steps: int | None
    evaluate_every: int | None = None
    clip_norm: float | None = None
    local_steps: LocalSteps | None = None
    correction: Correction | None = None

    @property
    def budget(self) -> int | None:
        """How many iterations all slots together are granted; None: the slots end by themselves."""
        return None if self.steps is None else self.steps * self.slots

    @property
    def keeps_pulled(self) -> bool:
        """Whether shards keep the weights that each slot has pulled."""
        return self.correction is not None and self.correction.compares_weights

    @property
    def mini_batches(self) -> int:
        """How many a slot draws for one iteration."""
        return mini_batches(self.local_steps)

    def update_factor(self, lr_factor: float) -> float:
        """What shards multiply their learning rate with, where evaluations have made ``lr_factor`` of the job's.

        With local steps that is the inner one, and the outer one stays.
        """
        return lr_factor if self.local_steps is None else 1.0

    @property
    def push_names_norm(self) -> bool:
        """Whether a push says how large its gradient is: on arrival no shard knows all of it."""
        return self.clip_norm is not None and isinstance(self.mode, Async)

    def __post_init__(self) -> None:
        for field, value in (("slots", self.slots), ("shards", self.shards)):
            if value < 1:
                raise ConfigurationError(f"{field} must be >= 1, got {value}")
        for field, optional in (("steps", self.steps), ("evaluate_every", self.evaluate_every)):
            if optional is not None and optional < 1:
                raise ConfigurationError(f"{field} must be >= 1, got {optional}")
        if self.clip_norm is not None and not (isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ConfigurationError(f"clip_norm must be a finite number > 0, got {self.clip_norm}")
        if self.clip_norm is not None and self.local_steps is not None:
            raise ConfigurationError(
                f"clip_norm must be left out with local steps, where slots clip the gradients, got {self.clip_norm}"
            )
        if self.local_steps is not None and isinstance(self.correction, DelayCompensation):
            raise ConfigurationError(
                f"correction must be lag-lr or gap with local steps, got {self.correction}: the square of what these "
                "push is no estimate of a curvature"
            )
        if isinstance(self.mode, Sync) and self.mode.backups >= self.slots:
            raise ConfigurationError(f"backups must be < slots, got {self.mode.backups} of {self.slots} slots")
        if isinstance(self.mode, Async) and self.mode.gather > self.slots:  # else an update could outgrow the budget
            raise ConfigurationError(f"gather must be <= slots, got {self.mode.gather} of {self.slots} slots")
        if isinstance(self.mode, Sync) and self.correction is not None:
            raise ConfigurationError(
                f"correction must be left out with mode sync, where nothing is stale, got {self.correction}; try async"
            )
