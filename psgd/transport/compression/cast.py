"""Codecs that write every value by itself: float32 as it is, bfloat16 and float16 rounded to nearest even.

The rounded ones take no error feedback. Their error is at most 2⁻⁸ (bfloat16) or 2⁻¹¹ (float16, above 6e-5) of each
value and has no direction, far less than the noise of a mini-batch; a residual would cost float32 memory for every slot
and another pass over it.
"""

from dataclasses import dataclass

import torch

from psgd.transport.compression.codec import is_finite


@dataclass(frozen=True, slots=True)
class Float32:
    """The values themselves; where ``out`` is the values' own memory, nothing is copied."""

    name = "float32"

    def encoded_bytes(self, elements: int) -> int:
        """Four bytes a value."""
        return 4 * elements

    def encode(self, values: torch.Tensor, out: torch.Tensor) -> bool:
        """Copy, unless it is there already."""
        copy(values, out.view(torch.float32))
        return is_finite(values)

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Copy, unless it is there already."""
        copy(encoded.view(torch.float32), out)


@dataclass(frozen=True, slots=True)
class Half:
    """Two bytes a value; a value beyond the range becomes infinite (float16: from 65520 on).

    Args:
        dtype: torch.bfloat16 or torch.float16.
    """

    dtype: torch.dtype

    @property
    def name(self) -> str:
        """As torch calls it."""
        return str(self.dtype).removeprefix("torch.")

    def encoded_bytes(self, elements: int) -> int:
        """Two bytes a value."""
        return 2 * elements

    def encode(self, values: torch.Tensor, out: torch.Tensor) -> bool:
        """Round to nearest even."""
        return is_finite(out.view(self.dtype).copy_(values))

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Widen, which is exact."""
        out.copy_(encoded.view(self.dtype))


def copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy into memory of the same size and dtype, unless it is the source's own."""
    if source.data_ptr() != target.data_ptr():
        target.copy_(source)
