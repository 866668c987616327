"""What a slot pushes: its gradient, written as the wire wants it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from psgd.core.clipping import add_exactly, norm_of
from psgd.core.ids import Shard
from psgd.core.layout import Layout, Part, Span, partition
from psgd.core.slot import Computed
from psgd.core.spans import merged
from psgd.training.clipping import SquareSums
from psgd.transport.base import Upload
from psgd.transport.compression import Residual
from psgd.transport.flat import allocate, view_bytes
from psgd.transport.pinned import allocator
from psgd.transport.wire_format import JobWire
from psgd.worker.copy_stream import SideStream
from psgd.worker.device_gradient import DeviceGradient
from psgd.worker.encoded_gradient import EncodedGradient
from psgd.worker.gradient import SlotGradient

BUCKET_BYTES = 4 * 2**20
"""What leaves together: less would cost more in messages than it gains."""


@dataclass(slots=True)
class _Bucket:
    """What is to leave together."""

    spans: list[Span] = field(default_factory=list)
    bytes: int = 0


class Outgoing:
    """One slot's push, from the gradient to the bytes for each shard.

    Args:
        parts: indexed by shard.
        memory: where the bytes are sent from, as ``wire.pushes`` says.
        device: where the model computes.
        names_norm: the push is to say how large the gradient is.

    Attributes:
        gradient: where the slot's gradient is gathered; with float32, where it is sent from.
        residual: what error feedback has to send yet; None without.
    """

    def __init__(
        self,
        layout: Layout,
        parts: tuple[Part, ...],
        wire: JobWire,
        memory: torch.Tensor,
        device: torch.device,
        names_norm: bool = False,
    ) -> None:
        self._parts = parts
        self._wire = wire
        self._memory = memory
        self._absent: frozenset[int] = frozenset()
        self._indices = {spec.name: index for index, spec in enumerate(layout.tensors)}
        self._uploads: Sequence[Upload] = ()
        self._buckets: list[_Bucket] = []
        self._left: dict[str, int] = {}
        self._left_finite = True
        on_host = device.type == "cpu"
        gathered = memory if wire.push_is_identity else allocator(not on_host)(layout.pushed_bytes)
        encoded = on_host and not wire.push_is_identity
        self.gradient = EncodedGradient(gathered, layout) if encoded else gradient_on(device, gathered, layout)
        self._sum_squares = SquareSums(layout, partition(layout, 1)[0]) if names_norm else None
        self._floating_bytes = layout.floating_bytes
        self._decoded = allocate(layout.pushed_bytes) if names_norm and not wire.push_is_identity else None
        self.residual = Residual(layout) if any(each.push.feedback for each in wire.formats) else None

    def begin(self, uploads: Sequence[Upload]) -> None:
        """Let gradients leave as they become final.

        Args:
            uploads: indexed by shard.
        """
        self._uploads, self._buckets = uploads, [_Bucket() for _ in uploads]
        self._left, self._left_finite = {}, True
        self.gradient.begin()

    def leave(self, name: str) -> None:
        """A parameter's gradient lies here, and is probably final: send it, with others to a bucket."""
        if name in self._left:  # it was not: backward has come back to it
            self._withdraw()
        index = self._indices[name]
        self._left[name] = self.gradient.version(name)
        for shard, each in enumerate(self._wire.formats):
            place = each.push.places.get(index)
            if place is not None:
                if not each.push.identity:
                    gathered, written = self._memory_of(shard)
                    elsewhere = self.gradient.elsewhere
                    self._left_finite &= each.push.encode_tensor(index, gathered, written, self.residual, elsewhere)
                self._put(shard, place)

    def write(self, computed: Computed) -> Computed:
        """Write what has not left for the wire.

        Returns:
            The same, and whether what the shards will read is finite, and how large.
        """
        written = self._write(computed)
        return replace(written, norm=self._norm()) if self._sum_squares is not None and written.finite else written

    def _write(self, computed: Computed) -> Computed:
        self._absent = frozenset(computed.absent)
        if any(self.gradient.version(name) != version for name, version in self._left.items()):
            self._withdraw()
        if self._wire.push_is_identity:
            return computed
        finite, done = self._left_finite, {self._indices[name] for name in self._left}
        for shard, each in enumerate(self._wire.formats):
            gathered, written = self._memory_of(shard)
            elsewhere = self.gradient.elsewhere
            finite &= each.push.encode(gathered, written, self.residual, self._absent, done, elsewhere)
        self._left = {}
        if self.residual is None:
            self.gradient.release()
        return replace(computed, finite=computed.finite and finite)

    def _norm(self) -> float | None:
        """Of the gradient as the shards will read it."""
        if self._sum_squares is None:
            return None
        read = self._memory if self._decoded is None else self._decoded
        if self._decoded is not None:
            for shard, each in enumerate(self._wire.formats):
                each.push.decode(_cut(self._memory, self._wire.pushes[shard]), _cut(read, self._parts[shard].pushed))
        squares = self._sum_squares(read[: self._floating_bytes].view(torch.float32))
        return norm_of([add_exactly(squares)])

    def _withdraw(self) -> None:
        """What had left has changed since: backward came back to it, or the training loop did something to it."""
        for upload in self._uploads:
            upload.withdraw()
        self._buckets = [_Bucket() for _ in self._uploads]
        self._left, self._left_finite = {}, True

    def _put(self, shard: int, place: Span) -> None:
        bucket = self._buckets[shard]
        bucket.spans.append(place)
        bucket.bytes += place.bytes
        if bucket.bytes >= BUCKET_BYTES:
            for span in merged(bucket.spans):
                self._uploads[shard].ready(span)
            self._buckets[shard] = _Bucket()

    def _memory_of(self, shard: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A shard's part of the gradient, and of what is sent."""
        return _cut(self.gradient.memory, self._parts[shard].pushed), _cut(self._memory, self._wire.pushes[shard])

    def payload(self, shard: Shard) -> memoryview:
        """The bytes for a shard."""
        return view_bytes(_cut(self._memory, self._wire.pushes[shard]))

    def accepted(self, shard: Shard) -> None:
        """The shard has taken its bytes: what they left out is to be sent another time."""
        if self.residual is not None:
            gathered, sent = self._memory_of(shard)
            elsewhere = self.gradient.elsewhere
            self._wire.formats[shard].push.carry(gathered, sent, self.residual, self._absent, elsewhere)


def gradient_on(device: torch.device, memory: torch.Tensor, layout: Layout) -> SlotGradient:
    """A slot's gradient, computed on this device and gathered in this memory."""
    if device.type == "cpu":
        return SlotGradient(memory, layout)
    return DeviceGradient(memory, layout, SideStream(device))


def _cut(memory: torch.Tensor, span: Span) -> torch.Tensor:
    return memory[span.start : span.stop]
