"""How a slot comes to its gradient: forward and backward on the worker's replica, into what the slot pushes."""

from collections.abc import Callable
from functools import partial

from psgd.core.ids import Slot
from psgd.core.slot import Compute, Computed
from psgd.worker.compute import Computation
from psgd.worker.replica import Replica
from psgd.worker.runner import SlotRunner

ComputeGradient = Callable[[Compute, Slot, Callable[[], None]], Computation]
"""(what the slot machine wants, slot, before the last backward pass): leaves the gradient in the replica.

Where nothing is final before the end, the last is not called.
"""


class GradientMaker:
    """Makes gradients on a replica, for one slot at a time.

    Args:
        compute: leaves the gradient of (step, slot) in the replica's tensors.
        overlap: gradients leave while backward computes the rest of them.
    """

    def __init__(self, replica: Replica, compute: ComputeGradient, overlap: bool) -> None:
        self._replica = replica
        self._compute = compute
        self._overlap = overlap

    def __call__(self, runner: SlotRunner, wanted: Compute) -> tuple[Computation, Computed]:
        """Leave the slot's gradient in what it pushes."""
        gradient = runner.outgoing.gradient
        self._replica.renew()
        self._replica.aim(gradient)
        self._replica.clear_gradients()
        computation = self._compute(wanted, runner.machine.slot, partial(self._let_leave, runner))
        return computation, self._replica.gather(gradient)

    def _let_leave(self, runner: SlotRunner) -> None:
        """The last backward pass begins: what it completes is final."""
        if self._overlap:
            runner.begin_push()
            self._replica.aim(runner.outgoing.gradient, runner.outgoing.leave)
