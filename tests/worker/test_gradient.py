import pytest
import torch
from torch import Tensor

from psgd.core.layout import Layout, Role, TensorSpec
from psgd.transport.flat import allocate, views
from psgd.worker.gradient import CHUNK, SlotGradient

LARGE = CHUNK + 70
"""Elements of a tensor that is copied in several pieces."""

LAYOUT = Layout(
    [
        TensorSpec("large", (LARGE,), "float32", Role.PARAMETER),
        TensorSpec("matrix", (30, 20), "float32", Role.PARAMETER),
        TensorSpec("scalar", (), "float32", Role.PARAMETER),
        TensorSpec("empty", (0, 5), "float32", Role.PARAMETER),
        TensorSpec("mean", (70,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("fixed", (3,), "float32", Role.FROZEN),
    ]
)
PARAMETERS = ["large", "matrix", "scalar", "empty"]


def make() -> tuple[SlotGradient, dict[str, Tensor]]:
    """A gradient, and the tensors in its memory."""
    memory = allocate(LAYOUT.pushed_bytes)
    return SlotGradient(memory, LAYOUT), views(memory, LAYOUT, pushed_only=True)


def drawn(name: str, seed: int = 0) -> Tensor:
    spec = next(spec for spec in LAYOUT.tensors if spec.name == name)
    return torch.randn(spec.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*PARAMETERS, "mean"])
def test_what_is_kept_lies_in_the_memory_from_then_on(name: str) -> None:
    gradient, there = make()
    value = drawn(name)
    kept = gradient.keep(name, value)
    assert torch.equal(kept, value)
    assert torch.equal(there[name], value)
    kept += 1
    assert torch.equal(there[name], value + 1)
    assert gradient.keep(name, kept) is kept
    assert torch.equal(there[name], value + 1)


def test_the_view_stays_the_same_one() -> None:
    gradient, there = make()
    first = gradient.keep("matrix", drawn("matrix", 1))
    assert gradient.keep("matrix", drawn("matrix", 2)) is first
    assert torch.equal(there["matrix"], drawn("matrix", 2))


def test_counters_are_kept_as_they_are() -> None:
    gradient, there = make()
    gradient.keep("count", torch.tensor(2**40 + 1))
    assert there["count"].item() == 2**40 + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_gradients_in_any_memory_format_are_kept_and_looked_at(value: float) -> None:
    gradient, there = make()
    turned = drawn("matrix").t().contiguous().t()
    assert not turned.is_contiguous()
    assert gradient.keep("matrix", turned).is_contiguous()
    assert torch.equal(there["matrix"], turned)
    spread = torch.zeros(2 * LARGE)[::2]
    gradient.keep("large", spread)
    assert gradient.is_finite({})
    expanded = torch.tensor(value).expand(30, 20)
    gradient.keep("matrix", expanded)
    assert torch.equal(there["matrix"].isnan(), expanded.isnan())
    assert not gradient.is_finite({})


def test_no_gradient_is_zero() -> None:
    gradient, there = make()
    gradient.keep("scalar", torch.tensor(torch.inf))
    gradient.zero("scalar")
    assert there["scalar"].item() == 0
    assert gradient.is_finite({})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, CHUNK - 1, CHUNK, LARGE - 1])
def test_one_value_that_is_not_finite_is_found_in_every_piece(value: float, where: int) -> None:
    gradient, _ = make()
    large = drawn("large")
    gradient.keep("large", large)
    assert gradient.is_finite({})
    large[where] = value
    gradient.keep("large", large)
    assert not gradient.is_finite({})
    gradient.keep("large", drawn("large"))
    assert gradient.is_finite({})


def test_infinities_of_both_signs_do_not_cancel() -> None:
    gradient, _ = make()
    gradient.keep("matrix", torch.full((30, 20), torch.inf))
    gradient.keep("scalar", torch.tensor(-torch.inf))
    assert not gradient.is_finite({})


@pytest.mark.parametrize("name", ["large", "matrix"])
def test_huge_values_are_finite_though_their_sum_is_not(name: str) -> None:
    gradient, _ = make()
    huge = torch.full_like(drawn(name), torch.finfo(torch.float32).max)
    assert huge.sum().isinf()
    gradient.keep(name, huge)
    assert gradient.is_finite({})
    huge[..., -1] = torch.nan
    gradient.keep(name, huge)
    assert not gradient.is_finite({})


@pytest.mark.parametrize("name", ["large", "matrix", "scalar"])
def test_what_is_done_to_it_in_place_is_looked_at(name: str) -> None:
    gradient, _ = make()
    kept = gradient.keep(name, drawn(name))
    kept.mul_(torch.inf)  # a loop that scales or clips
    assert not gradient.is_finite({})
    kept.zero_()
    assert gradient.is_finite({})
    torch._foreach_mul_([kept], torch.nan)  # as torch.nn.utils.clip_grad_norm_ does it
    assert not gradient.is_finite({})


def test_what_is_done_to_one_does_not_touch_the_others() -> None:
    gradient, _ = make()
    kept = {name: gradient.keep(name, drawn(name)) for name in PARAMETERS}
    versions = {name: tensor._version for name, tensor in kept.items()}
    kept["matrix"].mul_(2)
    assert {name for name, tensor in kept.items() if tensor._version != versions[name]} == {"matrix"}


def test_a_gradient_with_a_graph_is_kept_without_it() -> None:
    """As ``backward(create_graph=True)`` leaves it."""
    gradient, there = make()
    leaf = drawn("large").requires_grad_()
    for factor in (2, 3):
        kept = gradient.keep("large", leaf * factor)
        assert not kept.requires_grad
        assert torch.equal(there["large"], leaf.detach() * factor)


def test_a_buffer_counts_where_it_was_finite_when_pulled() -> None:
    gradient, _ = make()
    pulled = torch.zeros(70)
    pulled[3] = -torch.inf
    gradient.keep("mean", pulled)
    assert gradient.is_finite({"mean": pulled})
    spoilt = pulled.clone()
    spoilt[4] = torch.nan
    gradient.keep("mean", spoilt)
    assert not gradient.is_finite({"mean": pulled})


def test_bytes_between_tensors_are_not_looked_at() -> None:
    memory = torch.full((LAYOUT.pushed_bytes,), 255, dtype=torch.uint8)  # NaN, read as float32
    gradient = SlotGradient(memory, LAYOUT)
    for name in (*PARAMETERS, "mean"):
        gradient.keep(name, drawn(name))
    assert gradient.is_finite({})
