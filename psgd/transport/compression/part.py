"""The encoded form of one shard's push."""

from bisect import bisect_right
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

import torch

from psgd.core.layout import Layout, Part, Role, Span
from psgd.errors import PeerError
from psgd.transport.compression.cast import Float32, copy
from psgd.transport.compression.codec import Codec, FeedbackCodec
from psgd.transport.compression.residual import Residual

ALIGNMENT = 64
"""Bytes; every encoded slice starts at a multiple of it."""

NOTHING: Mapping[int, torch.Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Piece:
    """One slice of the push.

    Args:
        tensor: index in the layout.
        elements: of the tensor.
        memory: its bytes in the part's pushed memory.
        encoded: its bytes on the wire.
        residual: its elements in the slot's residual.
    """

    tensor: int
    elements: Span
    memory: Span
    encoded: Span
    residual: Span


class PartEncoding:
    """How the pushed memory of one part is written on the wire.

    Slices of trainable parameters go through the codec, each on its own; buffers and counters travel as they are.
    With float32 the encoding is the pushed memory itself: where both are the same memory, nothing is copied.

    Args:
        codec: the same on both ends.

    Raises:
        ConfigurationError: if the codec can not take a slice of that size.
    """

    def __init__(self, layout: Layout, part: Part, codec: Codec) -> None:
        self.identity = isinstance(codec, Float32)
        """Whether encoded and pushed memory are the same bytes."""
        self._codec = codec
        self._feedback = codec if isinstance(codec, FeedbackCodec) else None
        self._coded: dict[int, Piece] = {}  # by tensor, in their order
        self._raw: list[Piece] = []
        end = self._place(layout, part)
        self.bytes = part.pushed.bytes if self.identity else end
        """Size of the encoded push."""
        pieces = (*self._coded.values(), *self._raw)
        starts = sorted([piece.encoded.start for piece in pieces] + [self.bytes])
        self.places = {
            piece.tensor: Span(piece.encoded.start, starts[bisect_right(starts, piece.encoded.start)])
            for piece in self._coded.values()
        }
        """By parameter that has a slice here, its bytes, and the gap behind them, which is nobody's."""

    @property
    def feedback(self) -> bool:
        """Whether a slot keeps a residual."""
        return self._feedback is not None

    def _place(self, layout: Layout, part: Part) -> int:
        """Where the last encoded slice ends."""
        end = 0
        for piece in part.slices:
            spec = layout.tensors[piece.tensor]
            if spec.role is Role.FROZEN:
                continue
            coded, elements = spec.role is Role.PARAMETER, piece.stop - piece.start
            size = self._codec.encoded_bytes(elements) if coded else elements * spec.item_bytes
            start = piece.offset if self.identity else -(-end // ALIGNMENT) * ALIGNMENT
            end = start + size
            memory = Span(piece.offset, piece.offset + elements * spec.item_bytes)
            first = (part.pushed.start + piece.offset) // 4
            own, carried = Span(piece.start, piece.stop), Span(first, first + elements)
            placed = Piece(piece.tensor, own, memory, Span(start, end), carried)
            if coded:
                self._coded[piece.tensor] = placed
            else:
                self._raw.append(placed)
        return end

    def encode(
        self,
        memory: torch.Tensor,
        out: torch.Tensor,
        residual: Residual | None = None,
        absent: AbstractSet[int] = frozenset(),
        done: AbstractSet[int] = frozenset(),
        elsewhere: Mapping[int, torch.Tensor] = NOTHING,
    ) -> bool:
        """Write a push; neither it nor the residual is changed.

        Args:
            memory: (part.pushed.bytes,) uint8: gradients, then new values of buffers and counters.
            out: (bytes,) uint8; the gaps between slices are left as they are.
            residual: of the slot, for a codec with error feedback; None: without feedback.
            absent: indices, in the layout, of the parameters without a gradient; their bytes are zero. They are sent
                as zeros, as the shard may skip them: what their residual holds must wait.
            done: indices of parameters that `encode_tensor` has written.
            elsewhere: by index in the layout, gradients that do not lie in the memory: (elements,) float32 each, of
                the whole tensor.

        Returns:
            Whether the gradient that the shard decodes is finite. Buffers are not judged, nor is what was done.
        """
        finite = True
        for piece in self._coded.values():
            if piece.tensor not in done:
                values, carried = _values(piece, memory, elsewhere), None if piece.tensor in absent else residual
                finite &= self._encode(piece, values, out, carried)
        for piece in self._raw:
            copy(_cut(memory, piece.memory), _cut(out, piece.encoded))
        return finite

    def encode_tensor(
        self,
        tensor: int,
        memory: torch.Tensor,
        out: torch.Tensor,
        residual: Residual | None,
        elsewhere: Mapping[int, torch.Tensor] = NOTHING,
    ) -> bool:
        """Write one parameter's slice, as `encode` would.

        Args:
            tensor: its index in the layout; of one that has a place here.
            memory, out, residual, elsewhere: as `encode` takes them.

        Returns:
            Whether what the shard decodes of it is finite.
        """
        piece = self._coded[tensor]
        return self._encode(piece, _values(piece, memory, elsewhere), out, residual)

    def _encode(self, piece: Piece, values: torch.Tensor, out: torch.Tensor, residual: Residual | None) -> bool:
        encoded = _cut(out, piece.encoded)
        if self._feedback is None or residual is None:
            return self._codec.encode(values, encoded)
        return self._feedback.encode(values, encoded, _elements(residual, piece))

    def carry(
        self,
        memory: torch.Tensor,
        encoded: torch.Tensor,
        residual: Residual,
        absent: AbstractSet[int] = frozenset(),
        elsewhere: Mapping[int, torch.Tensor] = NOTHING,
    ) -> None:
        """The shard has accepted the push: leave in the residual what it did not hold.

        To be called once, and only then: the residual of a push that is refused stays as it was.

        Args:
            memory, encoded, absent, elsewhere: as they were given to `encode`, unchanged.
        """
        if self._feedback is None:
            return
        for piece in self._coded.values():
            if piece.tensor not in absent:
                values, sent = _values(piece, memory, elsewhere), _cut(encoded, piece.encoded)
                self._feedback.carry(values, sent, _elements(residual, piece))

    def decode(self, encoded: torch.Tensor, memory: torch.Tensor) -> None:
        """Read a push.

        Args:
            encoded: (bytes,) uint8, from a peer.
            memory: (part.pushed.bytes,) uint8; the padding is left as it is.

        Raises:
            PeerError: if the codec writes no such bytes; then ``memory`` is not to be used.
        """
        if encoded.numel() != self.bytes:
            raise PeerError(f"a push encoded as {self._codec.name} has {self.bytes} bytes here, got {encoded.numel()}")
        for piece in self._coded.values():
            self._codec.decode(_cut(encoded, piece.encoded), _values(piece, memory, NOTHING))
        for piece in self._raw:
            copy(_cut(encoded, piece.encoded), _cut(memory, piece.memory))


def _cut(memory: torch.Tensor, span: Span) -> torch.Tensor:
    return memory[span.start : span.stop]


def _values(piece: Piece, memory: torch.Tensor, elsewhere: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The slice's values, (elements,) float32."""
    tensor = elsewhere.get(piece.tensor)
    return _cut(memory, piece.memory).view(torch.float32) if tensor is None else _cut(tensor, piece.elements)


def _elements(residual: Residual, piece: Piece) -> torch.Tensor:
    """The slice's residual, (elements,) float32."""
    return _cut(residual.values, piece.residual)
