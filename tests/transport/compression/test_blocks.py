import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from psgd.transport.compression.blocks import Int8, OneBit
from psgd.transport.compression.codec import CHUNK

TINY = np.finfo(np.float32).tiny
SIZES = [1, 9, 255, 256, 257, 1000, CHUNK + 300]

arrays = stn.arrays(
    np.float32, st.integers(0, 600), elements=st.floats(-(2.0**100), 2.0**100, width=32), fill=st.just(np.float32(0.25))
)


def written(codec: Int8 | OneBit, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes, and what they decode to."""
    out = torch.full((codec.encoded_bytes(len(values)),), 0xA5, dtype=torch.uint8)
    codec.encode(torch.from_numpy(values), out)
    back = torch.full((len(values),), torch.nan)
    codec.decode(out, back)
    return out.numpy(), back.numpy()


def blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[start : start + 256] for start in range(0, len(values), 256)]


def by_element(scales: np.ndarray, elements: int) -> np.ndarray:
    return np.repeat(scales, 256)[:elements]


def int8_oracle(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    largest = np.array([np.abs(block).max() for block in blocks(values)], np.float32)
    scales = np.maximum(largest / np.float32(127), TINY)
    codes = np.rint(values / by_element(scales, len(values))).astype(np.int8)
    return scales.tobytes() + codes.tobytes(), codes.astype(np.float32) * by_element(scales, len(values))


def onebit_oracle(values: np.ndarray, scales: np.ndarray) -> tuple[bytes, np.ndarray]:
    positive = values >= 0
    bits = bytearray(-(-len(values) // 8))
    for index in np.flatnonzero(positive):
        bits[index // 8] |= 1 << index % 8
    each = by_element(scales, len(values))
    return scales.tobytes() + bytes(bits), np.where(positive, each, -each)


def dyadic(elements: int) -> np.ndarray:
    """Numbers whose sums float32 holds exactly, in whatever order they are added."""
    return (np.random.default_rng(0).integers(-1000, 1001, elements) / 64).astype(np.float32)


def normal(elements: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(elements).astype(np.float32)


@pytest.mark.parametrize("elements", SIZES)
def test_int8_writes_what_the_formula_says(elements: int) -> None:
    encoded, back = written(Int8(), normal(elements))
    expected, values = int8_oracle(normal(elements))
    assert encoded.tobytes() == expected
    assert np.array_equal(back, values)


@given(arrays)
def test_int8_is_the_formula_for_any_values_and_as_exact_as_it_says(values: np.ndarray) -> None:
    encoded, back = written(Int8(), values)
    expected, numbers = int8_oracle(values)
    assert encoded.tobytes() == expected
    assert np.array_equal(back, numbers)
    for block, there in zip(blocks(values), blocks(back), strict=True):
        scale = max(np.abs(block).max().astype(np.float64) / 127, float(TINY))
        assert np.abs(there.astype(np.float64) - block).max() <= scale * (0.5 + 1e-4)


def test_int8_rounds_halves_to_even() -> None:
    _, back = written(Int8(), np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5], np.float32))
    assert back.tolist() == [127, 0, 2, 2, 0, -2]


def test_int8_keeps_what_is_nearly_too_small() -> None:
    values = np.array([100 * TINY, -TINY, TINY / 4], np.float32)
    _, back = written(Int8(), values)
    assert back.tolist() == [100 * TINY, -TINY, 0]


def test_only_the_block_with_a_value_that_is_not_finite_is_lost() -> None:
    values = np.ones(700, np.float32)
    values[300] = np.inf
    encoded, back = written(Int8(), values)
    assert not encoded[12:][256:512].any()  # what a cast makes of NaN would be the machine's
    assert np.isnan(back[256:512]).all()
    assert (back[:256] == 1).all()
    assert (back[512:] == 1).all()
    _, back = written(OneBit(), values)
    assert np.isinf(back[256:512]).all()
    assert (back[:256] == 1).all()


@pytest.mark.parametrize("elements", SIZES)
def test_onebit_writes_signs_and_the_mean_magnitude_of_each_block(elements: int) -> None:
    values = dyadic(elements)
    scales = np.array([np.abs(block).sum() / np.float32(len(block)) for block in blocks(values)], np.float32)
    encoded, back = written(OneBit(), values)
    expected, numbers = onebit_oracle(values, scales)
    assert encoded.tobytes() == expected
    assert np.array_equal(back, numbers)


@given(arrays)
def test_onebit_is_the_formula_for_any_values(values: np.ndarray) -> None:
    encoded, back = written(OneBit(), values)
    count = -(-len(values) // 256)
    scales = encoded[: 4 * count].view(np.float32)
    means = [np.abs(block).astype(np.float64).mean() for block in blocks(values)]
    assert np.allclose(scales, means, rtol=1e-5, atol=0)  # the order of a float32 sum is the machine's
    expected, numbers = onebit_oracle(values, scales)
    assert encoded.tobytes() == expected
    assert np.array_equal(back, numbers)


def test_onebit_never_adds_to_the_norm_of_the_error() -> None:
    values = normal(1000)
    _, back = written(OneBit(), values)
    assert np.square(values - back).sum() < np.square(values).sum()


@pytest.mark.parametrize("elements", SIZES)
def test_onebit_sends_the_sum_and_carries_the_rest(elements: int) -> None:
    values, carried = torch.from_numpy(dyadic(elements)), torch.from_numpy(dyadic(elements)[::-1].copy()) / 2
    total = values + carried
    out, alone = (torch.zeros(OneBit().encoded_bytes(elements), dtype=torch.uint8) for _ in range(2))
    assert OneBit().encode(values, out, carried)
    OneBit().encode(total, alone)
    assert torch.equal(out, alone)
    sent = torch.empty(elements)
    OneBit().decode(out, sent)
    OneBit().carry(values, out, carried)
    assert torch.equal(carried, total - sent)


def test_sizes() -> None:
    assert [Int8().encoded_bytes(n) for n in (0, 1, 256, 257)] == [0, 5, 260, 265]
    assert [OneBit().encoded_bytes(n) for n in (0, 1, 8, 9, 256, 257)] == [0, 5, 5, 6, 36, 41]
