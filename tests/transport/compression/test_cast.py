import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psgd.transport.compression.cast import Float32, Half

BFLOAT16, FLOAT16 = Half(torch.bfloat16), Half(torch.float16)

numbers = st.lists(st.floats(width=32, allow_nan=False), max_size=50)


def written(codec: Float32 | Half, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes, and what they decode to."""
    out = torch.zeros(codec.encoded_bytes(len(values)), dtype=torch.uint8)
    codec.encode(torch.from_numpy(values), out)
    back = torch.zeros(len(values))
    codec.decode(out, back)
    return out.numpy(), back.numpy()


@given(numbers)
def test_bfloat16_is_the_upper_half_rounded_to_nearest_even(values: list[float]) -> None:
    bits = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    encoded, back = written(BFLOAT16, np.array(values, np.float32))
    assert encoded.tobytes() == expected.tobytes()
    assert back.tobytes() == (expected.astype(np.uint32) << 16).tobytes()


@given(numbers)
def test_float16_is_numpys(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values, np.float32).astype(np.float16)
    encoded, back = written(FLOAT16, np.array(values, np.float32))
    assert encoded.tobytes() == expected.tobytes()
    assert back.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("codec", "last"), [(FLOAT16, np.float32(65520)), (BFLOAT16, np.uint32(0x7F7F8000).view(np.float32))]
)
def test_a_value_beyond_the_range_is_not_finite(codec: Half, last: np.float32) -> None:
    below = np.nextafter(last, np.float32(0))
    for value, finite in ((last, False), (-last, False), (below, True), (-below, True)):
        out = torch.zeros(2, dtype=torch.uint8)
        assert codec.encode(torch.tensor([value]), out) is finite


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-6e4, max_value=6e4), min_size=1))
def test_the_error_is_that_small(values: list[float]) -> None:
    exact = np.array(values, np.float32).astype(np.float64)
    for codec, relative, absolute in ((BFLOAT16, 2.0**-8, 2.0**-134), (FLOAT16, 2.0**-11, 2.0**-25)):
        _, back = written(codec, np.array(values, np.float32))
        assert (np.abs(back - exact) <= relative * np.abs(exact) + absolute).all()


def test_float32_is_the_values_themselves() -> None:
    values = np.array([1.5, -0.0, 1e-45, 3e38], np.float32)
    encoded, back = written(Float32(), values)
    assert encoded.tobytes() == values.tobytes()
    assert back.tobytes() == values.tobytes()
    memory = torch.from_numpy(values)
    version = memory._version
    assert Float32().encode(memory, memory.view(torch.uint8))
    Float32().decode(memory.view(torch.uint8), memory)
    assert memory._version == version  # nothing was written


def test_names_and_sizes() -> None:
    assert [(codec.name, codec.encoded_bytes(3)) for codec in (Float32(), BFLOAT16, FLOAT16)] == [
        ("float32", 12),
        ("bfloat16", 6),
        ("float16", 6),
    ]
