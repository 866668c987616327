import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from psgd.errors import ConfigurationError, PeerError
from psgd.transport.compression.topk import SAMPLE, TopK

LARGE = 9 * SAMPLE + 5


def oracle(values: np.ndarray, kept: int) -> bytes:
    sizes = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.lexsort((np.arange(len(values)), -sizes))  # by size, then by place
    indices = np.sort(order[:kept])
    return indices.astype(np.int32).tobytes() + (values[indices] + np.float32(0)).tobytes()


def written(codec: TopK, values: np.ndarray) -> torch.Tensor:
    out = torch.full((codec.encoded_bytes(len(values)),), 0xA5, dtype=torch.uint8)
    codec.encode(torch.from_numpy(values), out)
    return out


def normal(elements: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(elements).astype(np.float32)


def lonely(elements: int) -> np.ndarray:
    """Large just where the sample looks."""
    values = np.full(elements, 1e-3, np.float32)
    values[:: max(8, elements // SAMPLE)] = 1.0
    return values


def hidden(elements: int) -> np.ndarray:
    """Large just where the sample does not look."""
    values = normal(elements)
    values[:: max(8, elements // SAMPLE)] = 0
    return values


def sparse(elements: int) -> np.ndarray:
    """Almost all zero, a few of them subnormal."""
    values = np.zeros(elements, np.float32)
    values[elements // 2 :: 1 + elements // 50] = 1.5
    values[-1] = 1e-45
    return values


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("elements", [1, 100, 1000, LARGE])
@pytest.mark.parametrize("make", [normal, lambda n: np.ones(n, np.float32), lambda n: np.zeros(n, np.float32)])
def test_the_largest_are_sent_and_of_equal_ones_the_first(fraction: float, elements: int, make: object) -> None:
    assert callable(make)
    values, codec = make(elements), TopK(fraction)
    assert written(codec, values).numpy().tobytes() == oracle(values, codec.encoded_bytes(elements) // 8)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("elements", [9, 5000, LARGE])
@pytest.mark.parametrize("make", [lonely, hidden, sparse])
def test_a_sample_that_misleads_changes_nothing(fraction: float, elements: int, make: object) -> None:
    assert callable(make)
    values, codec = make(elements), TopK(fraction)
    assert written(codec, values).numpy().tobytes() == oracle(values, codec.encoded_bytes(elements) // 8)


@given(
    stn.arrays(np.float32, st.integers(1, 200), elements=st.floats(width=32)),
    st.floats(0, 1, exclude_min=True).map(lambda fraction: max(fraction, 1e-6)),
)
def test_any_values_and_fraction_agree_with_the_oracle(values: np.ndarray, fraction: float) -> None:
    codec = TopK(fraction)
    kept = codec.encoded_bytes(len(values)) // 8
    out = written(codec, values)
    assert out.numpy()[: 4 * kept].tobytes() == oracle(values, kept)[: 4 * kept]
    sent = out.numpy()[4 * kept :].view(np.float32)
    assert np.array_equal(sent, values[out.numpy()[: 4 * kept].view(np.int32)], equal_nan=True)


@given(stn.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32)))
def test_what_is_sent_arrives_in_its_place_and_the_rest_is_zero(values: np.ndarray) -> None:
    codec, back = TopK(0.1), torch.full((len(values),), torch.nan)
    out = written(codec, values)
    codec.decode(out, back)
    kept = codec.encoded_bytes(len(values)) // 8
    assert np.count_nonzero(back.numpy()) <= kept
    left = np.abs(values - back.numpy())
    assert (left[back.numpy() != 0] == 0).all()
    assert left.max() <= np.sort(np.abs(values))[::-1][kept - 1]


@pytest.mark.parametrize("elements", [1, 1000, LARGE])
def test_the_sum_is_sent_and_the_rest_carried(elements: int) -> None:
    values, carried = torch.from_numpy(normal(elements)), torch.from_numpy(normal(elements)[::-1].copy())
    codec, total = TopK(0.01), values + carried
    out = torch.zeros(codec.encoded_bytes(elements), dtype=torch.uint8)
    codec.encode(values, out, carried)
    assert torch.equal(out, written(codec, total.numpy()))
    sent = torch.empty(elements)
    codec.decode(out, sent)
    codec.carry(values, out, carried)
    assert torch.equal(carried, total - sent)


@pytest.mark.parametrize(
    "indices", [[-1, 3], [3, 10], [0, 2**31 - 1], [-(2**31), 0], [4, 4], [5, 4]], ids=lambda bad: str(bad)
)
def test_indices_that_no_worker_writes_are_refused_and_nothing_is_written(indices: list[int]) -> None:
    memory = torch.full((30,), 7.0)
    encoded = torch.cat([torch.tensor(indices, dtype=torch.int32), torch.ones(2).view(torch.int32)]).view(torch.uint8)
    with pytest.raises(PeerError, match="must ascend from 0 to below 10"):
        TopK(0.2).decode(encoded, memory[10:20])
    assert (memory == 7).all()


def test_k_is_exact_and_at_least_one() -> None:
    sizes = [
        TopK(fraction).encoded_bytes(n) // 8
        for fraction, n in ((0.07, 100), (0.01, 1), (0.01, 101), (1.0, 5), (0.5, 0))
    ]
    assert sizes == [7, 1, 2, 5, 0]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match="fraction of wire topk must be > 0 and <= 1"):
        TopK(fraction)


def test_a_slice_that_int32_can_not_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="use more shards"):
        TopK(0.01).encoded_bytes(2**31)
