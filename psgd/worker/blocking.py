"""A slot for a loop that waits: for the weights of an iteration, then for the answers to its push."""

import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from psgd.config import Job
from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.messages import Receipt
from psgd.core.slot import Finish, Halt, Phase, SlotEvent
from psgd.errors import LostError
from psgd.runlog import Iteration
from psgd.transport.attachment import Attachment
from psgd.transport.state import read_last
from psgd.worker.record import Chronicle
from psgd.worker.replica import Replica
from psgd.worker.runner import Inbox, SlotRunner, Weights


class BlockingSlot:
    """One incarnation of one slot, and the only one on its replica.

    Args:
        attachment: to the shards.
        tensors: the loop's model, by the layout's names; bound as `psgd.worker.replica.Replica` says.
        device: where they are.
        chronicle: makes the slot's records.
        observe: told about every finished iteration.
        overlap: gradients leave during backward; if they change after it, they leave again.

    Raises:
        ConfigurationError: if the tensors are not the layout's.
    """

    def __init__(
        self,
        job: Job,
        slot: Slot,
        incarnation: Incarnation,
        attachment: Attachment,
        tensors: Mapping[str, torch.Tensor],
        device: torch.device,
        chronicle: Chronicle,
        observe: Callable[[Iteration], None],
        overlap: bool,
    ) -> None:
        self.receipts: tuple[Receipt, ...] = ()
        """The answers to the last push, indexed by shard; empty before the first."""
        self.samples = job.training.batch_size
        """Of the iteration under way, for its record."""
        self._replica = Replica(tensors, job.layout, device, attachment.weights, attachment.find_written)
        self._parts = job.parts()
        self._rules = job.rules
        self._connections = attachment.connections
        self._inbox: Inbox = queue.SimpleQueue()
        weights = Weights(attachment, self._parts)
        self._runner = SlotRunner(job, slot, incarnation, attachment, weights, self._inbox, device, chronicle)
        self._replica.aim(self._runner.outgoing.gradient)
        self._observe = observe
        self._overlap = overlap
        self._refusal: str | None = None
        self._pulled_at = time.perf_counter()
        self._loss: float | None = None
        self._compute_s = 0.0

    @property
    def clock(self) -> Step:
        """The iteration under way: those before it are finished."""
        return self._runner.machine.clock

    @property
    def ended(self) -> bool:
        """Whether the run has no further iteration."""
        return self._runner.machine.phase is Phase.ENDED

    def open(self) -> None:
        """Join, and wait for the first weights.

        Raises:
            LostError: if a shard refuses the slot: this worker was replaced, or a shard is gone.
        """
        self._runner.start()
        self._proceed()

    def finish(self, loss: float | None) -> None:
        """Push the gradient, wait for all answers, and for the next iteration's weights.

        Args:
            loss: of the batch, for the record.

        Raises:
            LostError: if a shard refuses the slot: this worker was replaced, or a shard is gone.
        """
        self._check_welcome()
        self._loss, self._compute_s = loss, time.perf_counter() - self._pulled_at
        computed = self._replica.gather(self._runner.outgoing.gradient)
        self._take(replace(computed, renew=self._rules.mode.receipt_renews))
        self._proceed()

    def _proceed(self) -> None:
        """Wait until the replica has the weights of the iteration that comes next, or the last ones of the run."""
        machine = self._runner.machine
        while not (self.ended or machine.phase is Phase.COMPUTING):
            if machine.phase is Phase.READY:
                self._take(self._runner.choice())
            else:
                _, event = self._inbox.get()
                self._take(event)
        if self.ended:
            self._read_last()
        self._replica.renew()
        if self._overlap and not self.ended:
            self._runner.begin_push()
            self._replica.aim(self._runner.outgoing.gradient, self._runner.outgoing.leave)
        self._pulled_at = time.perf_counter()

    def _take(self, event: SlotEvent) -> None:
        for effect in self._runner.take(event):
            match effect:
                case Finish(receipts=receipts):
                    self.receipts = receipts
                    record = self._runner.chronicle.iteration(effect, self._loss, self.samples, self._compute_s)
                    self._observe(record)
                case Halt(reason):
                    self._refusal = reason
        self._check_welcome()

    def _check_welcome(self) -> None:
        if self._refusal is not None:
            raise LostError(f"slot {self._runner.machine.slot} was refused: {self._refusal}")

    def _read_last(self) -> None:
        """No grant, no pull; but a loop that goes on to evaluate or save its model expects the last update in it."""
        memory, _ = read_last(self._connections, self._replica.layout, self._parts, self._rules)
        self._replica.memory.copy_(memory)
