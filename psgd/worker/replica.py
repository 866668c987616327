"""A worker's replica: the model's parameters are views of one flat memory, which pulls fill; gradients leave packed."""

from collections.abc import Iterator, Mapping

import torch

from psgd.core.layout import Layout, Role
from psgd.core.slot import Computed
from psgd.errors import ConfigurationError
from psgd.transport.flat import allocate, layout_of, views


class Replica:
    """The tensors of a model, bound to flat memory.

    Args:
        tensors: the model's, by name; parameters are rebound in place, to views on ``device``.
        layout: what the shards hold.
        device: where the model computes.

    Raises:
        ConfigurationError: if the model's tensors are not the layout's.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], layout: Layout, device: torch.device) -> None:
        _check(layout_of(tensors), layout)
        self.layout = layout
        pinned = device.type == "cuda"
        self.memory = allocate(layout.bytes)
        """(layout.bytes,) uint8 on the host: what was pulled last."""
        if pinned:
            self.memory = self.memory.pin_memory()
        self._device_memory = self.memory.to(device) if pinned else self.memory
        self._tensors = dict(tensors)
        self._views = views(self._device_memory, layout)
        for spec in layout.tensors:
            tensor = self._tensors[spec.name]
            if spec.role in (Role.PARAMETER, Role.FROZEN):
                tensor.data = self._views[spec.name]

    def renew(self) -> None:
        """Take over what was pulled: parameters see it as they are views, buffers start from the shard's."""
        if self._device_memory is not self.memory:
            self._device_memory.copy_(self.memory)
        for spec in self.layout.tensors:
            if spec.role in (Role.BUFFER, Role.COUNTER):
                self._tensors[spec.name].copy_(self._views[spec.name])

    def clear_gradients(self) -> None:
        """Forget the gradients: a parameter that gets none is told apart from one whose gradient is zero."""
        for spec in self.layout.tensors:
            self._tensors[spec.name].grad = None

    def gather(self, into: torch.Tensor) -> Computed:
        """Pack gradients and new buffers for the push.

        Args:
            into: (layout.pushed_bytes,) uint8, on the host.

        Returns:
            Whether all of it is finite, and which parameters have no gradient (their bytes are zero).
        """
        targets = views(into, self.layout, pushed_only=True)
        absent = []
        for index, spec in enumerate(self.layout.tensors):
            tensor = self._tensors[spec.name]
            if spec.role is Role.FROZEN:
                continue
            if spec.role is not Role.PARAMETER:
                targets[spec.name].copy_(tensor)
            elif tensor.grad is None:
                targets[spec.name].zero_()
                absent.append(index)
            else:
                targets[spec.name].copy_(tensor.grad)
        finite = _finite(into[: self.layout.floating_bytes].view(torch.float32)) or not any(self._spoilt(targets))
        return Computed(finite, tuple(absent))

    def _spoilt(self, targets: Mapping[str, torch.Tensor]) -> Iterator[bool]:
        """By tensor, whether it holds NaN or Inf; a buffer may where it did when pulled, such as an attention mask."""
        pulled = views(self.memory, self.layout)
        for spec in self.layout.tensors:
            if spec.role is Role.PARAMETER:
                yield not torch.isfinite(targets[spec.name]).all()
            elif spec.role is Role.BUFFER:
                yield bool((~torch.isfinite(targets[spec.name]) & torch.isfinite(pulled[spec.name])).any())


def _finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or Inf, in one pass without a temporary."""
    low, high = torch.aminmax(values)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check(own: Layout, layout: Layout) -> None:
    """The model of this process is the one that the shards hold."""
    if own == layout:
        return
    theirs = {spec.name: spec for spec in layout.tensors}
    for spec in own.tensors:
        other = theirs.pop(spec.name, None)
        if other is None:
            raise ConfigurationError(f"tensor {spec.name!r} is not in the job's model: give Trainer the same model")
        if other != spec:
            raise ConfigurationError(
                f"tensor {spec.name!r} must be {other.role} {other.dtype}{list(other.shape)} as in the job's model, "
                f"got {spec.role} {spec.dtype}{list(spec.shape)}"
            )
    if theirs:
        names = ", ".join(theirs)
        raise ConfigurationError(f"tensors of the job's model are missing here: {names}")
    raise ConfigurationError("the model's tensors must come in the same order as in the job's model")
