"""The largest values of a slice and where they stand; the rest waits in the residual."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, sqrt

import numpy as np
import torch

from psgd.errors import ConfigurationError, PeerError
from psgd.transport.compression.codec import chunks

SAMPLE = 1 << 15
"""So many elements tell about where the k-th largest magnitude lies; of a small slice, every eighth."""

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
"""What every element but zero reaches."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The k = max(1, ceil(fraction · n)) values of largest magnitude; of equal ones the first.

    Encoded bytes are k int32 indices, ascending, then k float32 values. Inf and NaN count as the largest, so that they
    are sent. With error feedback it converges at the rate of SGD (Stich, Cordonnier and Jaggi 2018, "Sparsified SGD
    with Memory").

    Args:
        fraction: of the values of each slice, in (0, 1].

    Raises:
        ConfigurationError: if the fraction is none.

    >>> TopK(0.01).encoded_bytes(1000)
    80
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigurationError(f"the fraction of wire topk must be > 0 and <= 1, got {self.fraction}")

    @property
    def name(self) -> str:
        """With the fraction."""
        return f"topk:{self.fraction!r}"

    def encoded_bytes(self, elements: int) -> int:
        """Eight bytes for each value that is sent.

        Raises:
            ConfigurationError: if int32 can not number the elements.
        """
        if elements >= 1 << 31:
            raise ConfigurationError(f"topk takes slices of less than 2**31 elements, got {elements}: use more shards")
        return 8 * self._kept(elements)

    def encode(self, values: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None) -> bool:
        """Write the largest of values + residual."""
        kept = self._kept(values.numel())
        if not kept:
            return True
        indices, found = _candidates(values, residual, kept)
        chosen = _largest(found, kept)
        sent_indices, sent_values = _split(out, kept)
        sent_indices[:] = indices[chosen]
        sent_values[:] = found[chosen]
        return bool(np.isfinite(sent_values).all())

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Put the values in their places; the rest is zero.

        Raises:
            PeerError: if the indices do not ascend from 0 to below the number of elements.
        """
        indices, values = _split(encoded, self._kept(out.numel()))
        _check(indices, out.numel())
        out.zero_()
        out.numpy()[indices] = values

    def carry(self, values: torch.Tensor, encoded: torch.Tensor, residual: torch.Tensor) -> None:
        """Residual + values, and zero where it was sent: a value is sent as it is."""
        indices, _ = _split(encoded, self._kept(values.numel()))
        residual.add_(values)
        residual.numpy()[indices] = 0

    def _kept(self, elements: int) -> int:
        exact = Fraction(repr(self.fraction))  # 0.07 · 100 is more than 7 in floating point
        return min(elements, max(1, ceil(exact * elements)))


def _split(encoded: torch.Tensor, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values as views."""
    memory = encoded.numpy()
    return memory[: 4 * kept].view(np.int32), memory[4 * kept :].view(np.float32)


def _check(indices: np.ndarray, elements: int) -> None:
    if not len(indices):
        return
    if indices[0] < 0 or indices[-1] >= elements or not (indices[1:] > indices[:-1]).all():
        raise PeerError(f"the indices of a topk push must ascend from 0 to below {elements}: refused")


def _candidates(values: torch.Tensor, residual: torch.Tensor | None, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices, ascending, and values of at least ``kept`` elements of values + residual, the largest among them."""
    floor = _floor(values, residual, kept)
    indices, found = _reaching(floor, values, residual)
    if len(indices) < kept and floor > SMALLEST:  # the sample was not like the rest
        indices, found = _reaching(SMALLEST, values, residual)
    if len(indices) < kept:  # the first zeros fill up
        zeros = np.setdiff1d(np.arange(kept, dtype=np.int32), indices, assume_unique=True)
        indices, found = np.concatenate([indices, zeros]), np.pad(found, (0, len(zeros)))
        order = np.argsort(indices)
        indices, found = indices[order], found[order]
    return indices, found


def _floor(values: torch.Tensor, residual: torch.Tensor | None, kept: int) -> float:
    """A magnitude > 0 that ``kept`` elements, and not many more, are likely to reach.

    The rank in the sample is four standard deviations above the one expected.
    """
    elements = values.numel()
    stride = max(8, elements // SAMPLE)
    sample = values[::stride] if residual is None else values[::stride] + residual[::stride]
    expected = kept * len(sample) / elements
    rank = ceil(expected + 4 * sqrt(expected)) + 4
    return SMALLEST if rank >= len(sample) else max(SMALLEST, _kth_largest(_magnitudes(sample.numpy()), rank))


def _reaching(floor: float, values: torch.Tensor, residual: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of all elements of values + residual that are not smaller than the floor; NaN is not."""
    indices, found = [], []
    for start, run in chunks(values, residual):
        total = run.numpy()
        here = np.flatnonzero(~(np.abs(total) < floor))
        found.append(total[here])
        indices.append((here + start).astype(np.int32))
    return np.concatenate(indices), np.concatenate(found)


def _largest(values: np.ndarray, kept: int) -> np.ndarray:
    """Which ``kept`` of the values are largest; of equal ones the first. (n,) bool."""
    sizes = _magnitudes(values)
    least = _kth_largest(sizes, kept)
    chosen: np.ndarray = sizes > least
    chosen[np.flatnonzero(sizes == least)[: kept - np.count_nonzero(chosen)]] = True
    return chosen


def _kth_largest(sizes: np.ndarray, k: int) -> float:
    return float(np.partition(sizes, len(sizes) - k)[len(sizes) - k])


def _magnitudes(values: np.ndarray) -> np.ndarray:
    """|x|, and Inf for NaN."""
    sizes: np.ndarray = np.abs(values)
    sizes[np.isnan(sizes)] = np.inf
    return sizes
