"""What a slot pushes: gradients move in while backward runs, and are looked at on their way."""

from collections.abc import Container

import torch

from psgd.core.layout import Layout, Role, aligned
from psgd.transport.flat import views

CHUNK = 2**18
"""Elements that are copied and added up together: their bytes are still in the core's cache for the second."""


class SlotGradient:
    """One slot's gradient and new buffers, in memory that its planes can carry.

    Attributes:
        gathers: ``.grad`` comes to lie here at once; otherwise only what may be final is of use.

    Args:
        memory: (layout.pushed_bytes,) uint8, zeroed, on the host.
        layout: what the shards hold.
        judged: the roles of what `is_finite` looks at.
    """

    gathers = True

    def __init__(
        self, memory: torch.Tensor, layout: Layout, judged: Container[Role] = (Role.PARAMETER, Role.BUFFER)
    ) -> None:
        self.memory = memory
        self.elsewhere: dict[int, torch.Tensor] = {}
        """By index in the layout, gradients that do not lie in the memory: (elements,) float32 each."""
        # `.data`: a version counter for each, as views of one memory share theirs.
        self._targets = {name: view.data for name, view in views(memory, layout, pushed_only=True).items()}
        self._judged = [spec.name for spec in layout.tensors if spec.role in judged]
        self._large = {name for name, target in self._targets.items() if target.numel() > CHUNK}
        self._runs = self._runs_of_small(layout)
        self._sums: dict[str, tuple[int, list[torch.Tensor]]] = {}

    def _runs_of_small(self, layout: Layout) -> list[torch.Tensor]:
        """What lies between large tensors, in few views: to look at each small one takes longer than to copy it."""
        floats = self.memory[: layout.floating_bytes].view(torch.float32)
        runs, start = [], 0
        for index, spec in enumerate(layout.tensors):
            if spec.role in (Role.PARAMETER, Role.BUFFER):
                span = layout.span(index)
                floats[span.stop // 4 : aligned(span.stop) // 4] = 0.0  # nobody writes that
                if spec.name in self._large:
                    runs.append(floats[start : span.start // 4])
                    start = span.stop // 4
        return [run for run in (*runs, floats[start:]) if run.numel()]

    def begin(self) -> None:
        """What comes to lie here from now on is probably final."""

    def keep(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Let the value lie here.

        Args:
            value: of a gradient or buffer; copied unless it is the view that an earlier call returned.

        Returns:
            What is to take its place: the view of it here, which stays the same one for ever.
        """
        target = self._targets[name]
        if value is not target:
            with torch.no_grad():  # a gradient may have a graph of its own
                if name in self._large:
                    self._sums[name] = _copy(target, value)
                else:
                    target.copy_(value)
        return target

    def arrived(self, name: str) -> list[str]:
        """Values that lie here to stay, since the last call, now that this one was kept."""
        return [name]

    def version(self, name: str) -> int:
        """Changes with everything that is done to the value here."""
        return self._targets[name]._version

    def zero(self, name: str) -> None:
        """There is no gradient."""
        self._targets[name].zero_()
        self._sums.pop(name, None)

    def release(self) -> None:
        """It was written for the wire, and will not be read again."""

    def is_finite(self, pulled: dict[str, torch.Tensor]) -> bool:
        """Whether no value is NaN or Inf; a buffer's may be where it was when pulled, such as an attention mask.

        Args:
            pulled: buffers by name.
        """
        sums = [run.sum() for run in self._runs]
        sums += [part for name in self._judged if name in self._large for part in self._sums_of(name)]
        if not sums or torch.stack(sums).isfinite().all():
            return True
        return not any(self._is_spoilt(name, pulled) for name in self._judged)

    def _sums_of(self, name: str) -> list[torch.Tensor]:
        """Sums of the value as it is now; added up again if it was changed since it was copied."""
        target = self._targets[name]
        version, sums = self._sums.get(name, (-1, []))
        if version != target._version:
            sums = [part.sum() for part in target.view(-1).split(CHUNK)]
        return sums

    def _is_spoilt(self, name: str, pulled: dict[str, torch.Tensor]) -> bool:
        unsound = ~torch.isfinite(self._targets[name])
        return bool((unsound & pulled[name].isfinite() if name in pulled else unsound).any())


def _copy(target: torch.Tensor, value: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """Copy, and add up what was copied: where a value is NaN or Inf, so is a sum.

    Returns:
        The target's version after it, and the sums.
    """
    if value.is_contiguous():
        sums = []
        for here, there in zip(target.view(-1).split(CHUNK), value.view(-1).split(CHUNK), strict=True):
            sums.append(here.copy_(there).sum())
        return target._version, sums
    target.copy_(value)
    return target._version, [target.sum()]
