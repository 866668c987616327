"""What a codec is: one slice of float32 values to bytes and back, in pieces that stay in a core's cache."""

from collections.abc import Iterator
from math import isfinite
from typing import Protocol, runtime_checkable

import torch

CHUNK = 1 << 18
"""Elements that are worked on at a time: 1 MiB of float32, which a second pass still finds in the cache."""


class Codec(Protocol):
    """A way to write float32 values on the wire.

    How many bytes there are follows from how many values there are, so both ends know it beforehand. NaN and Inf never
    get lost: values that are not all finite decode to values that are not all finite.
    """

    @property
    def name(self) -> str:
        """What `parse_wire` makes the same codec of."""
        ...

    def encoded_bytes(self, elements: int) -> int:
        """How many bytes so many values take."""
        ...

    def encode(self, values: torch.Tensor, out: torch.Tensor) -> bool:
        """Write the values.

        Args:
            values: (elements,) float32.
            out: (encoded_bytes(elements),) uint8.

        Returns:
            Whether all that `decode` makes of it is finite: an overflow in the codec counts, too.
        """
        ...

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Read the values.

        Args:
            encoded: (encoded_bytes(elements),) uint8, from a peer.
            out: (elements,) float32.

        Raises:
            PeerError: if no `encode` writes such bytes; ``out`` is unchanged.
        """
        ...


@runtime_checkable
class FeedbackCodec(Codec, Protocol):
    """A codec that leaves so much out that training needs error feedback.

    What was not sent is remembered in a residual e, and tried again with the next gradient g (Seide et al. 2014;
    Karimireddy et al. 2019, "Error Feedback Fixes SignSGD", Algorithm 2, with the learning rate on the shard)::

        p = g + e;  send C(p);  e ← p − decode(C(p))
    """

    def encode(self, values: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None) -> bool:
        """Write values + residual, and leave both as they are.

        Args:
            residual: (elements,) float32; None: without feedback.
        """
        ...

    def carry(self, values: torch.Tensor, encoded: torch.Tensor, residual: torch.Tensor) -> None:
        """Leave in the residual what of values + residual was not sent.

        Args:
            values: as they were encoded.
            encoded: what `encode` wrote, with the same residual.
            residual: (elements,) float32, changed in place.
        """
        ...


def chunks(values: torch.Tensor, residual: torch.Tensor | None = None) -> Iterator[tuple[int, torch.Tensor]]:
    """Runs of values + residual, with the element at which they start.

    Yields:
        A run of at most `CHUNK` elements: a view of the values, or with a residual memory that the next run
        overwrites.
    """
    elements = values.numel()
    total = None if residual is None else torch.empty(min(elements, CHUNK))
    for start in range(0, elements, CHUNK):
        run = values[start : start + CHUNK]
        if residual is not None and total is not None:
            run = torch.add(run, residual[start : start + CHUNK], out=total[: run.numel()])
        yield start, run


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or Inf, in one pass without a temporary (a second one where their sum overflows)."""
    if isfinite(values.sum().item()):
        return True
    low, high = torch.aminmax(values)
    return isfinite(low.item()) and isfinite(high.item())
