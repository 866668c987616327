"""What a slot pushes on a wire that is not float32: gradients stay where backward has left them, to be encoded."""

from dataclasses import dataclass

import torch

from psgd.core.layout import Layout, Role
from psgd.worker.gradient import SlotGradient


@dataclass(frozen=True, slots=True)
class _Kept:
    """A gradient as it was when it was last looked at.

    Args:
        version: torch's count of its changes.
    """

    value: torch.Tensor
    version: int


class EncodedGradient(SlotGradient):
    """One slot's gradient where autograd has put it, and its buffers in memory.

    To gather gradients first would be one more pass over memory. Whether they are finite says who encodes them.

    Args:
        memory: (layout.pushed_bytes,) uint8, zeroed; of a gradient nothing comes to lie there.
        layout: what the shards hold.
    """

    gathers = False

    def __init__(self, memory: torch.Tensor, layout: Layout) -> None:
        super().__init__(memory, layout, judged=(Role.BUFFER,))
        indices = {spec.name: i for i, spec in enumerate(layout.tensors) if spec.role is Role.PARAMETER}
        self._indices = indices
        self._kept: dict[str, _Kept] = {}
        self._counts = dict.fromkeys(indices, 0)

    def keep(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Remember where the value lies; buffers are copied.

        Returns:
            The value itself, of a gradient.
        """
        if name not in self._indices:
            return super().keep(name, value)
        last = self._kept.get(name)
        if last is None or last.value is not value or last.version != value._version:
            self._kept[name] = _Kept(value, value._version)
            self._counts[name] += 1
            self.elsewhere[self._indices[name]] = value.detach().reshape(-1)
        return value

    def version(self, name: str) -> int:
        """Changes with every other value, and with everything that is done to one before it is kept again."""
        return self._counts[name]

    def zero(self, name: str) -> None:
        """There is no gradient: in memory there are zeros."""
        if self._kept.pop(name, None) is not None:
            del self.elsewhere[self._indices[name]]
            self._counts[name] += 1

    def release(self) -> None:
        """Autograd may have its memory back."""
        self._kept.clear()
        self.elsewhere.clear()
