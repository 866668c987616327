"""Codecs with one float32 scale for every 256 values: 8 bits or one bit for each value.

Encoded bytes are the scales, then the codes. The last block is as long as what is left.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from psgd.transport.compression.codec import CHUNK, chunks, is_finite

BLOCK = 256
"""Elements that share a scale; it divides `CHUNK`."""

LEVELS = 127
SMALLEST = torch.finfo(torch.float32).tiny
"""A subnormal scale would lose the precision of the quotients."""

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_SIGNS = 2 * _BITS.astype(np.float32) - 1  # (256, 8): by byte, +1 where the bit is set, lowest bit first


def blocks_in(elements: int) -> int:
    """How many blocks hold so many values."""
    return -(-elements // BLOCK)


def by_block(values: torch.Tensor, residual: torch.Tensor | None = None) -> Iterator[tuple[int, torch.Tensor]]:
    """The `chunks` of values + residual with one row a block: (blocks, 256), and what is left as (1, rest)."""
    for start, run in chunks(values, residual):
        whole = run.numel() // BLOCK * BLOCK
        if whole:
            yield start, run[:whole].view(-1, BLOCK)
        if whole < run.numel():
            yield start + whole, run[whole:].view(1, -1)


def split(encoded: torch.Tensor, elements: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales, (blocks, 1) float32, and the codes, uint8, as views."""
    end = 4 * blocks_in(elements)
    return encoded[:end].view(torch.float32).view(-1, 1), encoded[end:]


def scales_of(scales: torch.Tensor, start: int, rows: torch.Tensor) -> torch.Tensor:
    """The scales of the blocks that start at an element: (rows, 1)."""
    return scales[start // BLOCK : start // BLOCK + len(rows)]


@dataclass(frozen=True, slots=True)
class Int8:
    """code = round(x / scale), to nearest even, with scale = max|x| / 127 of the block, or the smallest normal float32.

    A block with NaN, Inf or float32's largest value becomes NaN. No error feedback: the error is at most 1/254 of the
    block's largest value and has no direction (see `cast`).
    """

    name = "int8"

    def encoded_bytes(self, elements: int) -> int:
        """A byte a value and a scale a block."""
        return 4 * blocks_in(elements) + elements

    def encode(self, values: torch.Tensor, out: torch.Tensor) -> bool:
        """Round every block on its own scale."""
        scales, codes = split(out, values.numel())
        scratch = torch.empty(min(values.numel(), CHUNK))
        finite = True
        for start, rows in by_block(values):
            scale = scales_of(scales, start, rows)
            torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_(), out=scale)
            divisor = scale.div_(LEVELS).clamp_(min=SMALLEST)
            largest = scale * LEVELS  # as it is decoded: float32's own largest value overflows
            if not is_finite(largest):
                finite, spoilt = False, ~torch.isfinite(largest)
                rows, divisor = rows.masked_fill(spoilt, 0.0), scale.masked_fill(spoilt, 1.0)
                scale.masked_fill_(spoilt, torch.nan)
            quotients = torch.div(rows, divisor, out=scratch[: rows.numel()].view(rows.shape))
            codes[start : start + rows.numel()].view(torch.int8).copy_(quotients.round_().view(-1))
        return finite

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Multiply each code by its block's scale, in float32."""
        scales, codes = split(encoded, out.numel())
        for start, rows in by_block(out):
            rows.copy_(codes[start : start + rows.numel()].view(torch.int8).view(rows.shape))
            rows.mul_(scales_of(scales, start, rows))


@dataclass(frozen=True, slots=True)
class OneBit:
    """The sign of each value (that of zero is plus), times the mean of the block's |x|.

    The compressor of Zheng, Huang and Kwok 2019, "Communication-Efficient Distributed Blockwise Momentum SGD with
    Error-Feedback", which is Karimireddy's EF-SignSGD by block: with error feedback it converges at the rate of SGD,
    without it need not converge. A block with NaN becomes NaN, one with Inf infinite.
    """

    name = "onebit"

    def encoded_bytes(self, elements: int) -> int:
        """A bit a value, lowest bit of a byte first, and a scale a block."""
        return 4 * blocks_in(elements) + -(-elements // 8)

    def encode(self, values: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None) -> bool:
        """Write signs and scales of values + residual."""
        scales, codes = split(out, values.numel())
        bits = codes.numpy()
        scratch = torch.empty(min(values.numel(), CHUNK))
        for start, rows in by_block(values, residual):
            positive = rows.view(-1).numpy() >= 0  # torch's own comparison takes six times as long
            packed = np.packbits(positive, bitorder="little")
            bits[start // 8 : start // 8 + len(packed)] = packed
            size = torch.abs(rows, out=scratch[: rows.numel()].view(rows.shape))
            torch.sum(size, 1, keepdim=True, out=scales_of(scales, start, rows)).div_(rows.shape[1])
        return is_finite(scales)

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """± the block's scale."""
        scales, codes = split(encoded, out.numel())
        scratch = _scratch_for_signs(out.numel())
        for start, rows in by_block(out):
            torch.mul(_signs(codes, start, rows, scratch), scales_of(scales, start, rows), out=rows)

    def carry(self, values: torch.Tensor, encoded: torch.Tensor, residual: torch.Tensor) -> None:
        """Residual + values − what was sent."""
        scales, codes = split(encoded, values.numel())
        scratch = _scratch_for_signs(values.numel())
        for start, rows in by_block(residual):
            rows.add_(values[start : start + rows.numel()].view(rows.shape))
            rows.addcmul_(_signs(codes, start, rows, scratch), scales_of(scales, start, rows), value=-1)


def _scratch_for_signs(elements: int) -> torch.Tensor:
    return torch.empty(min(-(-elements // 8) * 8, CHUNK))


def _signs(codes: torch.Tensor, start: int, rows: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """±1 for each element of the rows, in their shape, in the scratch memory."""
    first, stop = start // 8, -(-(start + rows.numel()) // 8)
    into = scratch[: 8 * (stop - first)].view(-1, 8)
    np.take(_SIGNS, codes[first:stop].numpy(), axis=0, out=into.numpy(), mode="clip")  # "raise" would buffer
    return into.view(-1)[: rows.numel()].view(rows.shape)
