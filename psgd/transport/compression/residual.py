"""What a slot has not sent yet of its gradients."""

from collections.abc import Mapping

import torch

from psgd.core.layout import Layout, Role
from psgd.errors import ConfigurationError
from psgd.transport.flat import allocate, view


class Residual:
    """The residual of one slot, over all shards; zero at first.

    It lives and dies with the slot's incarnation: `PartEncoding.carry` changes it when a shard has accepted the push,
    and a push that was refused leaves it alone. A new incarnation starts from the last checkpoint's (`load`) or from
    zero; so what a lost worker had not sent yet is lost, at most one residual, and a run with a codec that has one
    does not keep its bits through a loss. It is placed as the layout places tensors, not as shards hold them: it is
    the same for any number of shards.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._memory = allocate(layout.floating_bytes)
        self.values = self._memory.view(torch.float32)
        """(layout.floating_bytes / 4,) float32: the floating region of the flat space; zero where buffers lie."""

    def export(self) -> dict[str, torch.Tensor]:
        """A copy by parameter, each in its shape, float32."""
        return {name: tensor.clone() for name, tensor in self._views().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `export` gave.

        Raises:
            ConfigurationError: if it is not of this model; nothing has changed.
        """
        own = self._views()
        if tensors.keys() != own.keys():
            name = min(tensors.keys() ^ own.keys())
            raise ConfigurationError(f"the residual must be of the trainable parameters, which {name!r} contradicts")
        for name, target in own.items():
            given = tensors[name]
            if given.shape != target.shape or given.dtype != torch.float32:
                raise ConfigurationError(
                    f"the residual of {name!r} must be float32{list(target.shape)}, "
                    f"got {str(given.dtype).removeprefix('torch.')}{list(given.shape)}"
                )
        for name, target in own.items():
            target.copy_(tensors[name])

    def _views(self) -> dict[str, torch.Tensor]:
        return {
            spec.name: view(self._memory, self._layout.offsets[index], spec.elements, spec.dtype).view(spec.shape)
            for index, spec in enumerate(self._layout.tensors)
            if spec.role is Role.PARAMETER
        }
