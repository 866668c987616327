"""What is measured: a synthetic model of equal parameters, and the optimizer that everybody steps it with."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from psgd.config import ShardDevice
from psgd.core.layout import partition
from psgd.transport.base import Sizes
from psgd.transport.flat import layout_of, tensors_of
from psgd.transport.wire_format import WireFormat

ITEM_BYTES = 4
"""Of float32, in which everything is computed."""

UNCOMPRESSED = "float32"
"""The wire on which a gradient travels as it is."""


@dataclass(frozen=True, slots=True)
class StepCase:
    """One measurement, the same for psgd and every peer.

    Args:
        params: float32 numbers in all; those that do not divide by ``tensors`` are left out.
        tensors: equal parameters that they are cut into.
        workers: processes that compute gradients.
        shards: of psgd; its peers have one server, or none.
        warmup: steps before the measured ones.
        steps: that are measured.
        use_gpu: workers compute on GPUs, psgd's and those of the floor.
        shard_device: where psgd's shards update, and the floor.
        trainer_options: what psgd alone is told: keywords of `psgd.Trainer`.
    """

    params: int
    tensors: int
    workers: int
    shards: int
    warmup: int
    steps: int
    mode: Literal["sync", "async"] = "sync"
    use_gpu: bool = False
    shard_device: ShardDevice = "cpu"
    trainer_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of a gradient, and of the weights."""
        return self.params // self.tensors * self.tensors * ITEM_BYTES

    def payloads(self) -> list[Sizes]:
        """What psgd's tensors weigh on the wire, by shard."""
        layout = layout_of(tensors_of(self.make_model("meta")))
        wire = self.trainer_options.get("wire", UNCOMPRESSED)
        return [WireFormat(layout, part, wire).sizes for part in partition(layout, self.shards)]

    def make_model(self, device: str = "cpu") -> "InnerProducts":
        """The synthetic model, the same in every process."""
        return InnerProducts(self.params // self.tensors, self.tensors, device)


class InnerProducts(nn.Module):
    """The sum of ⟨wᵢ, cᵢ⟩ over the parameters wᵢ, with constants cᵢ: little to compute, as much to send as one likes.

    The constants are neither parameters nor buffers: nobody sends them.

    Args:
        elements: of each parameter.
        count: of the parameters.
        device: of all of them.

    Example:
        >>> InnerProducts(elements=3, count=2)().item()
        4.0
    """

    def __init__(self, elements: int, count: int, device: str = "cpu") -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.linspace(-1, 1, elements, device=device) for _ in range(count))
        self._constants = [torch.linspace(-1, 1, elements, device=device) for _ in range(count)]

    def forward(self) -> Tensor:
        """The loss: ()."""
        products = [torch.dot(w, c) for w, c in zip(self.weights, self._constants, strict=True)]
        return torch.stack(products).sum()


def sgd(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """SGD with momentum, in torch's fused form; the learning rate is so small that weights stay finite for ever."""
    return torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, fused=True)


def stamp_steps(warmup: int, steps: int, step: Callable[[], object]) -> tuple[float, ...]:
    """Warm up, then take the steps that count.

    Returns:
        When the warm-up and each step have ended, in seconds of the machine's monotonic clock, which all processes
        share: (steps + 1,).
    """
    for _ in range(warmup):
        step()
    ends = [time.perf_counter()]
    for _ in range(steps):
        step()
        ends.append(time.perf_counter())
    return tuple(ends)
