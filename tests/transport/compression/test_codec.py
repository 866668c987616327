"""What every codec promises; what each writes is in the tests of its own module."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from psgd.transport.compression.codec import CHUNK, Codec, FeedbackCodec, chunks, is_finite
from psgd.transport.compression.spec import parse_wire

NAMES = ["float32", "bfloat16", "float16", "int8", "topk:0.01", "topk:1.0", "onebit"]
SIZES = [0, 1, 7, 255, 256, 257, 1000, CHUNK + 300]

codecs = pytest.mark.parametrize("codec", [parse_wire(name) for name in NAMES], ids=NAMES)


def encoded(codec: Codec, values: Tensor) -> tuple[Tensor, bool]:
    """What the codec writes into memory that held something else, and what it says of it."""
    out = torch.full((codec.encoded_bytes(values.numel()),), 0xA5, dtype=torch.uint8)
    return out, codec.encode(values, out)


def decoded(codec: Codec, out: Tensor, elements: int) -> Tensor:
    values = torch.full((elements,), torch.nan)
    codec.decode(out, values)
    return values


def normal(elements: int, seed: int = 0) -> Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


@codecs
@pytest.mark.parametrize("elements", SIZES)
def test_every_size_travels_and_the_same_values_give_the_same_bytes(codec: Codec, elements: int) -> None:
    values = normal(elements)
    before = values.clone()
    out, finite = encoded(codec, values)
    again, _ = encoded(codec, values)
    assert finite
    assert torch.equal(out, again)
    assert torch.equal(values, before)
    assert decoded(codec, out, elements).isfinite().all()


@codecs
@pytest.mark.parametrize("elements", [1, 256, 1000, CHUNK + 300])
@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_stays_visible(codec: Codec, elements: int, spoilt: float) -> None:
    for at in {0, elements // 2, elements - 1}:
        values = normal(elements)
        values[at] = spoilt
        out, finite = encoded(codec, values)
        assert not finite
        assert not decoded(codec, out, elements)[at].isfinite()


@codecs
@given(st.lists(st.floats(width=32), max_size=600))
@example([3.4028234663852886e38] * 300)
def test_finite_means_that_what_is_decoded_is_finite(codec: Codec, numbers: list[float]) -> None:
    values = torch.tensor(numbers, dtype=torch.float32)
    out, finite = encoded(codec, values)
    assert finite == bool(decoded(codec, out, len(values)).isfinite().all())


@codecs
def test_zeros_stay_zeros(codec: Codec) -> None:
    out, finite = encoded(codec, torch.zeros(300))
    assert finite
    assert torch.equal(decoded(codec, out, 300), torch.zeros(300))


def test_only_the_codecs_that_leave_much_out_take_feedback() -> None:
    takes = [name for name in NAMES if isinstance(parse_wire(name), FeedbackCodec)]
    assert takes == ["topk:0.01", "topk:1.0", "onebit"]


def test_chunks_are_views_and_with_a_residual_sums() -> None:
    values, residual = normal(CHUNK + 3), normal(CHUNK + 3, seed=1)
    runs = list(chunks(values))
    assert [(start, run.data_ptr() - values.data_ptr(), run.numel()) for start, run in runs] == [
        (0, 0, CHUNK),
        (CHUNK, 4 * CHUNK, 3),
    ]
    sums = torch.cat([run.clone() for _, run in chunks(values, residual)])
    assert torch.equal(sums, values + residual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_values_are_finite_even_where_their_sum_overflows(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    assert is_finite(torch.full((600,), largest, dtype=dtype))
    assert is_finite(torch.empty(0, dtype=dtype))
    assert not is_finite(torch.tensor([largest, largest, torch.nan], dtype=dtype))
    assert not is_finite(torch.tensor([torch.inf, -torch.inf], dtype=dtype))
