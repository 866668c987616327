"""What a slot pushes: its gradient, written as the wire wants it."""

from collections.abc import Collection
from dataclasses import replace

import torch

from psgd.core.ids import Shard
from psgd.core.layout import Layout, Part, Span
from psgd.core.slot import Computed
from psgd.transport.compression import Residual
from psgd.transport.flat import allocate, view_bytes
from psgd.transport.wire_format import JobWire
from psgd.worker.gradient import SlotGradient


class Outgoing:
    """One slot's push, from the gradient to the bytes for each shard.

    Args:
        parts: indexed by shard.
        memory: where the bytes are sent from, as ``wire.pushes`` says.

    Attributes:
        gradient: where the slot's gradient is gathered; with float32, where it is sent from.
        residual: what error feedback has to send yet; None without.
    """

    def __init__(self, layout: Layout, parts: tuple[Part, ...], wire: JobWire, memory: torch.Tensor) -> None:
        self._parts = parts
        self._wire = wire
        self._memory = memory
        self._absent: Collection[int] = ()
        gathered = memory if wire.push_is_identity else allocate(layout.pushed_bytes)
        self.gradient = SlotGradient(gathered, layout)
        self.residual = Residual(layout) if any(each.push.feedback for each in wire.formats) else None

    def write(self, computed: Computed) -> Computed:
        """Write the gradient for the wire.

        Returns:
            The same, and whether what the shards will read is finite.
        """
        self._absent = computed.absent
        if self._wire.push_is_identity:
            return computed
        finite = True
        for each, part, span in zip(self._wire.formats, self._parts, self._wire.pushes, strict=True):
            gathered, written = _cut(self.gradient.memory, part.pushed), _cut(self._memory, span)
            finite &= each.push.encode(gathered, written, self.residual, self._absent)
        return replace(computed, finite=computed.finite and finite)

    def payload(self, shard: Shard) -> memoryview:
        """The bytes for a shard."""
        return view_bytes(_cut(self._memory, self._wire.pushes[shard]))

    def accepted(self, shard: Shard) -> None:
        """The shard has taken its bytes: what they left out is to be sent another time."""
        if self.residual is not None:
            gradient, sent = _cut(self.gradient.memory, self._parts[shard].pushed), self._wire.pushes[shard]
            self._wire.formats[shard].push.carry(gradient, _cut(self._memory, sent), self.residual, self._absent)


def _cut(memory: torch.Tensor, span: Span) -> torch.Tensor:
    return memory[span.start : span.stop]
