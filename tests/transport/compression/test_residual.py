import pytest
import torch

from psgd.core.layout import Layout, Role, TensorSpec
from psgd.errors import ConfigurationError
from psgd.transport.compression.residual import Residual

LAYOUT = Layout(
    [
        TensorSpec("a", (10, 10), "float32", Role.PARAMETER),
        TensorSpec("mean", (3,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("b", (5,), "float32", Role.PARAMETER),
        TensorSpec("fixed", (4,), "float32", Role.FROZEN),
    ]
)


def test_it_is_zero_at_first_and_holds_trainable_parameters_only() -> None:
    residual = Residual(LAYOUT)
    assert residual.values.shape == (LAYOUT.floating_bytes // 4,)
    exported = residual.export()
    assert {name: (tuple(t.shape), t.dtype) for name, t in exported.items()} == {
        "a": ((10, 10), torch.float32),
        "b": ((5,), torch.float32),
    }
    assert not any(tensor.any() for tensor in exported.values())


def test_what_is_exported_is_a_copy_that_another_one_takes_over() -> None:
    residual = Residual(LAYOUT)
    residual.load({"a": torch.arange(100.0).view(10, 10), "b": torch.ones(5)})
    exported = residual.export()
    residual.values.zero_()
    assert exported["a"][9, 9] == 99
    successor = Residual(LAYOUT)
    successor.load(exported)
    assert torch.equal(successor.values[:100], torch.arange(100.0))
    assert torch.equal(successor.export()["b"], torch.ones(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.ones(6)}, r"'b' must be float32\[5\], got float32\[6\]"),
        ({"b": torch.ones(5, dtype=torch.float64)}, r"'b' must be float32\[5\], got float64\[5\]"),
        ({"mean": torch.ones(3)}, "'mean' contradicts"),
    ],
)
def test_one_of_another_model_is_refused_and_nothing_changes(change: dict[str, torch.Tensor], message: str) -> None:
    residual = Residual(LAYOUT)
    with pytest.raises(ConfigurationError, match=message):
        residual.load({"a": torch.ones(10, 10), "b": torch.ones(5), **change})
    with pytest.raises(ConfigurationError, match="'b' contradicts"):
        residual.load({"a": torch.ones(10, 10)})
    assert not residual.values.any()
