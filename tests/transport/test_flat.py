import hashlib

import pytest
import torch
from torch import Tensor, nn

from psgd.core.layout import Layout, Role, TensorSpec
from psgd.errors import ConfigurationError
from psgd.transport.flat import (
    allocate,
    as_memory,
    layout_of,
    pack,
    sha256,
    tensors_of,
    view,
    view_bytes,
    views,
)


class Model(nn.Module):
    """One tensor of every role; a tied parameter, a tied buffer, and a buffer that is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor([0.5]))
        self.fixed = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        self.tied = self.weight
        self.register_buffer("again", self.mean)
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.register_buffer("count", torch.tensor([True, False]))
        self.bias = nn.Parameter(torch.ones(()))


def test_tensors_come_in_state_dict_order_and_tied_ones_by_their_first_name() -> None:
    model = Model()
    assert list(model.state_dict()) == ["weight", "fixed", "tied", "bias", "mean", "again", "count"]
    tensors = tensors_of(model)
    assert list(tensors) == ["weight", "fixed", "bias", "mean", "count"]
    assert tensors["weight"] is model.weight  # themselves, not copies


def test_the_role_of_a_tensor_follows_from_what_it_is() -> None:
    assert layout_of(tensors_of(Model())) == Layout(
        [
            TensorSpec("weight", (2, 3), "float32", Role.PARAMETER),
            TensorSpec("fixed", (1,), "float32", Role.FROZEN),
            TensorSpec("bias", (), "float32", Role.PARAMETER),
            TensorSpec("mean", (1,), "float32", Role.BUFFER),
            TensorSpec("count", (2,), "bool", Role.COUNTER),
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_a_dtype_that_shards_do_not_keep_is_refused_by_name(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigurationError, match=r"'w'.* must be .*float32"):
        layout_of({"w": nn.Parameter(torch.zeros(2, dtype=dtype))})


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_a_view_is_the_same_memory_in_every_dtype(dtype: str) -> None:
    memory = allocate(512)
    seen = view(memory, 256, 3, dtype)
    assert (seen.shape, str(seen.dtype)) == ((3,), f"torch.{dtype}")
    seen.fill_(1)
    assert memory[:256].count_nonzero() == 0
    assert torch.equal(view(memory, 256, 3, dtype), torch.ones(3, dtype=seen.dtype))


def test_packed_tensors_are_found_again_and_padding_is_zero() -> None:
    tensors = tensors_of(Model())
    layout = layout_of(tensors)
    memory = pack(tensors, layout)
    found = views(memory, layout)
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    for tensor in found.values():
        tensor.zero_()
    assert memory.count_nonzero() == 0


def test_pushed_memory_has_all_but_what_is_frozen() -> None:
    layout = layout_of(tensors_of(Model()))
    assert list(views(allocate(layout.pushed_bytes), layout, pushed_only=True)) == ["weight", "bias", "mean", "count"]
    assert layout.bytes - layout.pushed_bytes == 256


def test_what_can_not_be_packed_is_refused_by_name() -> None:
    tensors = tensors_of(Model())
    layout = layout_of(tensors)
    fewer = {name: tensor for name, tensor in tensors.items() if name != "weight"}
    with pytest.raises(ConfigurationError, match=r"tensor 'weight' is missing: the layout has it with shape \(2, 3\)"):
        pack(fewer, layout)
    with pytest.raises(ConfigurationError, match=r"tensor 'weight' must have shape \(2, 3\), got \(3, 2\)"):
        pack({**tensors, "weight": torch.zeros(3, 2)}, layout)


def test_weights_that_are_not_contiguous_are_packed_by_value() -> None:
    layout = Layout([TensorSpec("w", (3, 2), "float32", Role.PARAMETER)])
    transposed = torch.arange(6.0).view(2, 3).t()
    assert torch.equal(views(pack({"w": transposed}, layout), layout)["w"], transposed)


def test_bytes_are_the_same_memory_both_ways() -> None:
    memory = allocate(4)
    view_bytes(memory)[1] = 7
    assert memory.tolist() == [0, 7, 0, 0]
    content = bytearray(b"\x01\x02")
    as_memory(memoryview(content))[0] = 9
    assert content == b"\x09\x02"
    assert as_memory(memoryview(b"")).numel() == 0
    assert view_bytes(allocate(0)).nbytes == 0


def test_the_hash_is_over_the_floats_in_their_order_without_names() -> None:
    first, second = torch.tensor([1.0, -2.0]), torch.tensor([[3.5]])
    count = torch.tensor([4])
    expected = hashlib.sha256(b"\x00\x00\x80\x3f\x00\x00\x00\xc0\x00\x00\x60\x40").hexdigest()  # little-endian
    assert sha256({"a": first, "n": count, "b": second}) == expected
    assert sha256({"x": first, "y": second}) == expected
    assert sha256({"b": second, "a": first}) != expected
    assert sha256({"a": torch.tensor([[1.0, 0.0], [-2.0, 0.0]])[:, 0], "b": second}) == expected
