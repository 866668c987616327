"""The session of a training loop of one's own: which slot this is, what it reports, which batches it draws."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import torch

from psgd.config import Job, OwnLoop
from psgd.core.ids import LEAD, Incarnation, Slot
from psgd.core.messages import Done, Leave
from psgd.data.batches import Batch, MapDataset, draw_batch
from psgd.data.sampler import BatchPlan
from psgd.errors import ConfigurationError, InternalError, LostError, RunEnded
from psgd.runlog import Iteration, Reported
from psgd.transport.attachment import Attachment
from psgd.transport.state import ask
from psgd.worker.blocking import BlockingSlot
from psgd.worker.record import Chronicle

Number = float | torch.Tensor
"""A tensor of one element counts as a number."""


def report(metrics: Mapping[str, Number] | None = None, /, **named: Number) -> None:
    """Put figures into the run's log, from within a training loop; nobody waits for anybody.

    Args:
        metrics: numbers by name.
        named: more of them.

    Raises:
        ConfigurationError: outside a training loop, or if a value is no number.

    Example:
        ``psgd.report(train_loss=loss.item())``
    """
    current().report({**(metrics or {}), **named})


def batches(dataset: MapDataset, *, batch_size: int | None = None, steps: int | None = None) -> Iterator[Batch]:
    """The batches that the built-in loop would draw for this slot, for a training loop of your own.

    Each is drawn for the iteration that `DistributedOptimizer` has come to, and leaves everything seeded for it. So
    a loop that was replaced goes on where it was; and there is one batch for each ``optimizer.step()``. Ends with
    the run.

    Args:
        dataset: a map-style data set of (input, target) pairs.
        batch_size: samples of a batch; None: as the job says.
        steps: end before this iteration, counted from the beginning of the run, however often the loop was replaced.

    Raises:
        ConfigurationError: outside a training loop; before there is an optimizer; if the last batch saw no
            ``step()``; or if the data set is smaller than one step.

    Example:
        ``for inputs, targets in psgd.batches(dataset, steps=1000): ...``
    """
    session = current()
    training = session.job.training
    size = training.batch_size if batch_size is None else batch_size
    plan = BatchPlan(len(dataset), session.job.rules.slots, size, training.seed)
    return _draw(session, dataset, plan, steps)


def _draw(session: "Session", dataset: MapDataset, plan: BatchPlan, steps: int | None) -> Iterator[Batch]:
    bound = session.bound
    drawn = None
    while not bound.ended and (steps is None or bound.clock < steps):
        if bound.clock == drawn:
            raise ConfigurationError(
                f"the batch of iteration {drawn} was drawn already: call the optimizer's step() before the next one; "
                "to accumulate gradients, cut the batch"
            )
        drawn = bound.clock
        bound.samples = plan.batch_size
        yield draw_batch(dataset, plan, drawn, session.slot)


class Session:
    """One incarnation of one slot, run by a user's own loop.

    Args:
        worker: that runs it.
        attachment: to the shards.
        observe: told about every finished iteration and every report; must not block.
    """

    def __init__(
        self,
        job: Job,
        worker: int,
        slot: Slot,
        incarnation: Incarnation,
        attachment: Attachment,
        observe: Callable[[Iteration | Reported], None],
    ) -> None:
        self.job = job
        self.slot = slot
        self._incarnation = incarnation
        self._attachment = attachment
        self._observe = observe
        self._worker = worker
        self._bound: BlockingSlot | None = None

    @property
    def bound(self) -> BlockingSlot:
        """The slot, once an optimizer has bound a model to it.

        Raises:
            ConfigurationError: if none has.
        """
        if self._bound is None:
            raise ConfigurationError(
                "this loop has no DistributedOptimizer yet: make it before the first batch is drawn, as it knows "
                "which iteration comes next"
            )
        return self._bound

    def bind(self, tensors: Mapping[str, torch.Tensor], device: torch.device, overlap: bool) -> BlockingSlot:
        """Bind a model's tensors to the slot, once; they have weights when the slot is open.

        Args:
            tensors: by the layout's names.
            device: where they are.
            overlap: gradients leave during backward.

        Raises:
            ConfigurationError: if a model is bound already, or the tensors are not the layout's.
        """
        if self._bound is not None:
            raise ConfigurationError(
                f"slot {self.slot} has a DistributedOptimizer already: a training loop makes one, with all parameters"
            )
        self._bound = BlockingSlot(
            self.job,
            self.slot,
            self._incarnation,
            self._attachment,
            tensors,
            device,
            Chronicle(self._worker, self.slot),
            self._observe,
            overlap,
        )
        return self._bound

    def report(self, metrics: Mapping[str, Number]) -> None:
        """Log figures.

        Raises:
            ConfigurationError: if a value is no number.
        """
        self._observe(Reported(time.perf_counter(), self.slot, {n: _number(n, v) for n, v in metrics.items()}))

    def leave(self) -> None:
        """The loop has ended: tell the lead, so that no slot waits for this one any more.

        Raises:
            LostError: if the lead does not take it.
        """
        finished = 0 if self._bound is None else self._bound.clock
        reply = ask(self._attachment.connections[LEAD], Leave(self.slot, self._incarnation, finished)).result()
        if not isinstance(reply, Done):
            raise LostError(f"the lead did not let slot {self.slot} leave: {reply}")


def _number(name: str, value: Number) -> float:
    try:
        return float(value.item() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigurationError(
            f"report takes a number for each name, got {name}={value!r} ({type(value).__name__})"
        ) from None


_current: ContextVar[Session | None] = ContextVar("psgd_session", default=None)


def current() -> Session:
    """The session of the training loop that this thread runs.

    Raises:
        ConfigurationError: if it runs none.
    """
    session = _current.get()
    if session is None:
        raise ConfigurationError(
            "there is no training loop here: DistributedOptimizer, psgd.report and psgd.batches work in the thread "
            "of a train_loop that Trainer(train_loop=...).fit() runs"
        )
    return session


@contextmanager
def running(session: Session) -> Iterator[None]:
    """Make the session the current one of this thread."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def run_own_loop(session: Session) -> None:
    """Run the job's own loop to its end, and tell the lead.

    A loop that fails does not leave: its worker is replaced and goes on, or the run fails; either way it is
    not the end of the slot.

    Raises:
        Exception: whatever the loop raises, but `RunEnded`, which is a way to end.
    """
    own = session.job.own_loop
    if own is None:
        raise InternalError("a job without an own loop has the built-in one")
    with running(session):
        with suppress(RunEnded):
            _call(own)
        session.leave()


def _call(own: OwnLoop) -> None:
    if inspect.signature(own.function).parameters:
        own.function(own.config or {})
    else:
        own.function()
