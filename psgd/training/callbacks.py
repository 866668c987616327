"""What a run tells the user's code while it goes on; and the schedule that is a function of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation, Iteration


class Callback:
    """Is told what happens in a run; override what you need. It runs in the driver, beside training.

    Example:
        >>> class Printer(Callback):
        ...     def on_evaluation(self, evaluation):
        ...         print(evaluation.step, evaluation.metrics)
    """

    def on_start(self) -> None:
        """The run has begun."""

    def on_step(self, iteration: Iteration) -> None:
        """A slot has finished an iteration."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """A snapshot was measured."""

    def on_end(self, result: object) -> None:
        """The run has ended, with the ``Result`` that ``fit()`` returns."""


@dataclass(frozen=True, slots=True)
class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch, by a function, as Keras' callback of that name.

    It runs on the shards, where it takes the place of an ``lr_scheduler``; an epoch is a pass over the training data,
    in samples drawn, so the learning rate is the same in every mode.

    Attributes:
        function: (epoch, learning rate of the group so far) to the group's learning rate.

    Example:
        >>> halved = LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
    """

    function: Callable[[int, float], float]

    def __post_init__(self) -> None:
        """Refuse what is no function."""
        if not callable(self.function):
            raise ConfigurationError(f"LearningRateScheduler needs a function of epoch and lr, got {self.function!r}")


@dataclass(slots=True)
class LearningRateMonitor(Callback):
    """Remembers the learning rates that updates were really made with, as their receipts say.

    (They are in the run's log and in TensorBoard, too.)

    Attributes:
        rates: by step the rates, one a parameter group; in async mode the step is the slots' own clock, and the
            latest one that was heard of counts.

    Example:
        ``monitor = LearningRateMonitor()``, ``Trainer(callbacks=[monitor], …).fit()``, ``monitor.rates[0]``
    """

    rates: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def on_step(self, iteration: Iteration) -> None:
        """Take the rates of an update."""
        if iteration.lr:
            self.rates[iteration.step] = iteration.lr
