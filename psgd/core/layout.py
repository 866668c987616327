"""The layout: an ordered list of tensors in one flat space of bytes, and its parts, one a shard.

The flat space has two regions. The *pushed* region holds what slots send back each iteration: trainable
parameters and floating buffers in layout order, then counters; the *frozen* region behind it holds parameters that
are stored but never updated. Every tensor starts at a multiple of 256 bytes (64 float32 elements), so a part is one
contiguous range of each region. A cut inside a tensor falls between two of its blocks, of 64 elements or a multiple of
it: there vector tails fall where they would fall in the uncut tensor, and a sum over a block is one shard's.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import prod

from psgd.errors import ConfigurationError

ALIGNMENT = 256
"""Bytes; 64 float32 elements."""

MOST_IN_BLOCK = 4096
"""Elements: what is summed a block at a time is small enough then, however large the tensor."""

BLOCKS = 256
"""How many blocks a tensor has at least, if that leaves them 64 elements: shards can be balanced that well."""

ITEM_BYTES = {"float32": 4, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


class Role(StrEnum):
    """What becomes of a tensor in an update."""

    PARAMETER = "parameter"
    """Trainable, float32: updated by the optimizer."""
    BUFFER = "buffer"
    """Floating, e.g. BatchNorm's running mean: averaged over the slots, in slot order."""
    COUNTER = "counter"
    """Integer or bool: taken from the lowest accepted slot."""
    FROZEN = "frozen"
    """Stored, never updated."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the layout.

    Args:
        name: its first name in the model's ``state_dict``; tied tensors are stored once.
        dtype: float32, or for counters one of the integer dtypes of `ITEM_BYTES`.

    Raises:
        ConfigurationError: if the dtype does not fit the role.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            known = ", ".join(ITEM_BYTES)
            raise ConfigurationError(f"tensor {self.name!r}: dtype must be one of {known}, got {self.dtype}")
        if self.role in (Role.PARAMETER, Role.BUFFER) and self.dtype != "float32":
            raise ConfigurationError(f"{self.role} {self.name!r} must be float32, got {self.dtype}")

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """Bytes an element."""
        return ITEM_BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        """Bytes of the tensor, without padding."""
        return self.elements * self.item_bytes

    @property
    def block(self) -> int:
        """Elements that are never cut apart: a power of two from 64 to `MOST_IN_BLOCK`; the last block may be shorter.

        >>> [TensorSpec("w", (n,), "float32", Role.PARAMETER).block for n in (10, 100_000, 25_000_000)]
        [64, 256, 4096]
        """
        block = 64
        while block < MOST_IN_BLOCK and 2 * block * BLOCKS <= self.elements:
            block *= 2
        return block

    @property
    def divisible(self) -> bool:
        """Whether shards may share it: no counter, and 64 of its elements fill a block of the flat space."""
        return self.elements > 0 and self.role is not Role.COUNTER and 64 * self.item_bytes == ALIGNMENT


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes, ``start`` to ``stop`` (excluded)."""

    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """Its length."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous flat range of one tensor, as a shard holds it.

    Args:
        tensor: index of the tensor in the layout.
        start: first element, in the flattened tensor.
        stop: behind the last element.
        offset: byte at which the slice starts in its shard's memory.
    """

    tensor: int
    start: int
    stop: int
    offset: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one shard holds: its memory is the pushed span followed by the frozen span of the flat space."""

    pushed: Span
    frozen: Span
    slices: tuple[Slice, ...]

    @property
    def bytes(self) -> int:
        """Size of the shard's memory."""
        return self.pushed.bytes + self.frozen.bytes


class Layout:
    """Where each tensor lies in the flat space.

    Args:
        tensors: in the order of the model's ``state_dict``.

    Raises:
        ConfigurationError: if a name occurs twice or nothing is trainable.

    >>> layout = Layout([TensorSpec("w", (100,), "float32", Role.PARAMETER)])
    >>> layout.pushed_bytes
    512
    """

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        self.tensors = tuple(tensors)
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigurationError(f"tensor {twice!r} occurs twice in the layout")
        if not any(tensor.role is Role.PARAMETER for tensor in self.tensors):
            raise ConfigurationError("the model has no trainable parameter: nothing to train")
        self.offsets, self.floating_bytes, self.pushed_bytes, self.bytes = _place(self.tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.tensors == other.tensors

    def __hash__(self) -> int:
        return hash(self.tensors)

    def span(self, tensor: int) -> Span:
        """The bytes of a tensor in the flat space, without padding."""
        return Span(self.offsets[tensor], self.offsets[tensor] + self.tensors[tensor].bytes)


def partition(layout: Layout, shards: int, whole: bool = False) -> tuple[Part, ...]:
    """Cut the flat space into one part a shard, balanced by bytes.

    Args:
        whole: keep every tensor on one shard, for optimizers that need the whole tensor.

    Returns:
        Indexed by shard; a part may be empty where there are more shards than blocks of 256 bytes (or tensors).
    """
    pushed = _cut(layout, Span(0, layout.pushed_bytes), shards, whole)
    frozen = _cut(layout, Span(layout.pushed_bytes, layout.bytes), shards, whole)
    return tuple(
        Part(p, f, tuple(_slices(layout, p, 0)) + tuple(_slices(layout, f, p.bytes)))
        for p, f in zip(pushed, frozen, strict=True)
    )


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _place(tensors: tuple[TensorSpec, ...]) -> tuple[tuple[int, ...], int, int, int]:
    """Offsets by tensor, and where the floating, the pushed and the frozen tensors end."""
    offsets = [0] * len(tensors)
    ends = []
    end = 0
    for roles in ((Role.PARAMETER, Role.BUFFER), (Role.COUNTER,), (Role.FROZEN,)):
        for index, tensor in enumerate(tensors):
            if tensor.role in roles:
                offsets[index] = end
                end += aligned(tensor.bytes)
        ends.append(end)
    return tuple(offsets), ends[0], ends[1], ends[2]


def _cut(layout: Layout, region: Span, shards: int, whole: bool) -> list[Span]:
    """Equal spans of a region, each bound moved to the nearest legal place."""
    starts = sorted({o for o in layout.offsets if region.start <= o < region.stop} | {region.start, region.stop})
    bounds = [region.start]
    for k in range(1, shards):
        ideal = region.start + k * region.bytes / shards
        bounds.append(max(bounds[-1], _legal_cut(layout, starts, ideal, whole)))
    bounds.append(region.stop)
    return [Span(a, b) for a, b in pairwise(bounds)]


def _legal_cut(layout: Layout, starts: list[int], ideal: float, whole: bool) -> int:
    """The place nearest to ``ideal`` where a region may be cut."""
    at = bisect_right(starts, ideal) - 1
    before, after = starts[at], starts[min(at + 1, len(starts) - 1)]
    divisible = (
        tensor
        for offset, tensor in zip(layout.offsets, layout.tensors, strict=True)
        if offset == before and tensor.divisible and not whole
    )
    tensor = next(divisible, None)
    if tensor is not None:
        grain = tensor.block * tensor.item_bytes
        return min(before + round((ideal - before) / grain) * grain, after)
    return before if ideal - before <= after - ideal else after


def _slices(layout: Layout, held: Span, base: int) -> Iterator[Slice]:
    """The slices of a span of the flat space, which starts at byte ``base`` of the shard's memory."""
    by_offset = sorted(range(len(layout.tensors)), key=lambda index: layout.offsets[index])
    for index in by_offset:
        tensor, span = layout.tensors[index], layout.span(index)
        start, stop = max(held.start, span.start), min(held.stop, span.stop)
        if start < stop:
            yield Slice(
                index,
                (start - span.start) // tensor.item_bytes,
                (stop - span.start) // tensor.item_bytes,
                base + start - held.start,
            )
