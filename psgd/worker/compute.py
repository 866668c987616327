"""What a slot computes: forward and backward over the batch of (step, slot), as a pure function of the weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from psgd.config import Loss, Training
from psgd.data.batches import MapDataset, collate, to_device
from psgd.data.sampler import BatchPlan, seed_everything
from psgd.worker.straggling import lingering


@dataclass(frozen=True, slots=True)
class Computation:
    """The figures of one iteration, whose gradient lies in ``.grad``.

    Args:
        loss: mean over the batch; None where nothing was computed.
        samples: how many the batch had.
        seconds: forward and backward, injected delay included.
        inner_lr: of local steps, one a parameter group.
    """

    loss: float | None
    samples: int
    seconds: float
    inner_lr: tuple[float, ...] = ()


class Supervised:
    """The built-in loop's computation.

    Args:
        model: in training mode, on ``device``.
        dataset: map-style, of (input, target) pairs.
        slots: of the job; they share each epoch.
    """

    def __init__(
        self, model: torch.nn.Module, training: Training, dataset: MapDataset, slots: int, device: torch.device
    ) -> None:
        self._model = model
        self._training = training
        self._dataset = dataset
        self._device = device
        self._plan = BatchPlan(len(dataset), slots, training.batch_size, training.seed)

    def __call__(self, step: int, slot: int, before_last: Callable[[], None]) -> Computation:
        """Leave the mean gradient of the slot's batch in ``.grad``.

        Args:
            before_last: called before the last backward pass.
        """
        began = time.perf_counter()
        losses = self.backward(step, slot, before_last)
        loss = sum(share.item() for share in losses)  # on a GPU that waits, so it comes last
        self.linger(step, slot, began)
        return Computation(loss, self._plan.batch_size, time.perf_counter() - began)

    def backward(self, step: int, slot: int, before_last: Callable[[], None]) -> list[torch.Tensor]:
        """Add the mean gradient of the slot's batch to ``.grad``.

        The batch is drawn whole, then computed in ``accumulate`` micro-batches, whose mean losses are weighted by
        their sizes.

        Args:
            step: with local steps, that of the mini-batch.
            before_last: called before the last backward pass.

        Returns:
            The micro-batches' shares in the mean loss, () each.
        """
        seed_everything(self._plan.seed, step, slot)
        batch = to_device(collate(self._dataset, self._plan.indices(step, slot)), self._device)
        size, losses = self._plan.batch_size, []
        chunk = -(-size // self._training.accumulate)
        for start in range(0, size, chunk):
            inputs, targets = (cut(part, start, start + chunk) for part in batch)
            share = min(chunk, size - start) / size
            if start + chunk >= size:
                before_last()
            losses.append(self._share(inputs, targets, share))
        return losses

    def _share(self, inputs: Any, targets: Any, share: float) -> torch.Tensor:
        """The share that a micro-batch has in the loss: ()."""
        mixed = self._training.precision == "bf16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=mixed):
            loss = _loss(self._training.loss, self._model(inputs), targets)
        if share != 1:
            loss = loss * share
        torch.autograd.backward(loss)
        return loss.detach()

    def linger(self, step: int, slot: int, began: float) -> None:
        """Make a straggler of the slot, if it is to be one.

        Args:
            began: when its iteration did, on ``time.perf_counter``.
        """
        computed_s = time.perf_counter() - began
        seconds = lingering(self._training.stragglers, computed_s, self._plan.seed, step, slot)
        if seconds > 0:
            time.sleep(seconds)


def _loss(loss: Loss, output: Any, targets: Any) -> torch.Tensor:
    """The loss in float32, whatever precision the model computed in; an output that is no tensor is left as it is."""
    lower = isinstance(output, torch.Tensor) and output.is_floating_point()
    return loss(output.float() if lower else output, targets)


def cut(batch: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop`` of a batch, whatever it is nested in."""
    if isinstance(batch, dict):
        return {name: cut(part, start, stop) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return [cut(part, start, stop) for part in batch]
    return batch[start:stop]
