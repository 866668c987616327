import weakref

import pytest
import torch
from torch import Tensor, nn

from psgd.core.layout import Layout
from psgd.transport.flat import allocate, layout_of, tensors_of, views
from psgd.worker.encoded_gradient import EncodedGradient


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("seen", torch.zeros(2))


LAYOUT: Layout = layout_of(tensors_of(Net()))
INDICES = {spec.name: index for index, spec in enumerate(LAYOUT.tensors)}


def made() -> tuple[EncodedGradient, dict[str, Tensor]]:
    """A slot's gradient, and what lies in its memory."""
    memory = allocate(LAYOUT.pushed_bytes)
    return EncodedGradient(memory, LAYOUT), views(memory, LAYOUT, pushed_only=True)


def test_a_gradient_stays_where_it_is_and_is_found_there() -> None:
    gradient, here = made()
    value = torch.arange(6.0).view(2, 3)
    assert gradient.keep("weight", value) is value
    found = gradient.elsewhere[INDICES["weight"]]
    assert found.shape == (6,)
    assert found.data_ptr() == value.data_ptr()
    assert not here["weight"].any()


def test_a_gradient_that_is_no_run_of_memory_is_found_as_one() -> None:
    gradient, _ = made()
    gradient.keep("weight", torch.arange(6.0).view(3, 2).t())
    assert gradient.elsewhere[INDICES["weight"]].tolist() == [0, 2, 4, 1, 3, 5]


def test_a_buffer_is_copied() -> None:
    gradient, here = made()
    gradient.keep("seen", torch.tensor([1.0, 2.0]))
    assert here["seen"].tolist() == [1, 2]
    assert gradient.elsewhere == {}


def test_the_version_tells_whether_a_gradient_is_still_the_same() -> None:
    gradient, _ = made()
    value = torch.ones(3)
    gradient.keep("bias", value)
    first = gradient.version("bias")
    gradient.keep("bias", value)
    assert gradient.version("bias") == first
    value.mul_(2)
    gradient.keep("bias", value)
    changed = gradient.version("bias")
    gradient.keep("bias", torch.ones(3))
    replaced = gradient.version("bias")
    gradient.zero("bias")
    assert len({first, changed, replaced, gradient.version("bias")}) == 4


def test_where_there_is_no_gradient_the_zeros_of_the_memory_are_sent() -> None:
    gradient, here = made()
    gradient.keep("bias", torch.ones(3))
    gradient.zero("bias")
    gradient.zero("weight")
    assert gradient.elsewhere == {}
    assert here["bias"].tolist() == [0, 0, 0]


def test_what_was_written_for_the_wire_is_let_go() -> None:
    gradient, _ = made()
    value = torch.ones(3)
    freed = weakref.ref(value)
    gradient.keep("bias", value)
    del value
    assert freed() is not None
    gradient.release()
    assert freed() is None
    assert gradient.elsewhere == {}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_whether_a_gradient_is_finite_says_who_encodes_it_and_of_buffers_this(value: float) -> None:
    gradient, _ = made()
    gradient.keep("bias", torch.full((3,), value))
    pulled = {"seen": torch.zeros(2)}
    assert gradient.is_finite(pulled)
    gradient.keep("seen", torch.full((2,), value))
    assert not gradient.is_finite(pulled)


def test_large_gradients_without_buffers_leave_nothing_to_judge() -> None:
    layout = layout_of(tensors_of(nn.Linear(1024, 512, bias=False)))
    assert EncodedGradient(allocate(layout.pushed_bytes), layout).is_finite({})
