"""CUDA's streams are what the hand-driven ones of the other tests make believe."""

import pytest
import torch
from torch import Tensor

from psgd.core.layout import Layout, Role, TensorSpec
from psgd.transport.flat import allocate, views
from psgd.transport.pinned import allocate_pinned
from psgd.worker.copy_stream import ModelStream, SideStream
from psgd.worker.device_weights import weights_on
from psgd.worker.outgoing import gradient_on

pytestmark = pytest.mark.gpu

ELEMENTS = 2**20
LONG = 200_000_000
"""Clock cycles of a GPU: about a tenth of a second."""
LAYOUT = Layout([TensorSpec(name, (ELEMENTS,), "float32", Role.PARAMETER) for name in ("first", "second")])


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda", 0)


def pinned_floats() -> Tensor:
    return allocate_pinned(4 * ELEMENTS).view(torch.float32)


def occupy() -> None:
    """Give the model's stream something to do."""
    torch.cuda._sleep(LONG)


def test_a_copy_on_the_side_has_what_the_model_was_to_compute_before_it(cuda: torch.device) -> None:
    stream, target = SideStream(cuda), pinned_floats()
    value = torch.zeros(ELEMENTS, device=cuda)
    occupy()
    value.fill_(1)
    mark = stream.copy(value, target)
    assert not mark.query()  # nobody has waited
    mark.synchronize()
    assert mark.query()
    assert target.unique().tolist() == [1.0]


def test_the_model_goes_on_while_a_copy_on_the_side_is_made(cuda: torch.device) -> None:
    stream, target = SideStream(cuda), pinned_floats()
    mark = stream.copy(torch.ones(ELEMENTS, device=cuda), target)
    occupy()
    mark.synchronize()
    behind: torch.cuda.Event = torch.cuda.current_stream(cuda).record_event()
    assert not behind.query()
    assert target.unique().tolist() == [1.0]
    torch.cuda.synchronize()


def test_memory_that_is_freed_is_not_used_again_before_it_is_copied(cuda: torch.device) -> None:
    stream, target = SideStream(cuda), pinned_floats()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream._stream):
        occupy()
    value = torch.ones(ELEMENTS, device=cuda)
    mark = stream.copy(value, target)
    del value
    others = [torch.full((ELEMENTS,), 2.0, device=cuda) for _ in range(8)]
    mark.synchronize()
    assert target.unique().tolist() == [1.0]
    assert len(others) == 8


def test_what_the_model_computes_next_sees_what_was_copied(cuda: torch.device) -> None:
    stream, host = ModelStream(cuda), pinned_floats()
    here = torch.zeros(ELEMENTS, device=cuda)
    host.fill_(3)
    occupy()
    mark = stream.copy(host, here)
    total = here.sum()
    mark.synchronize()
    host.fill_(9)  # the next pull
    assert total.item() == 3.0 * ELEMENTS


@pytest.mark.parametrize("pinned", [True, False])
def test_a_slots_gradient_comes_to_the_host(pinned: bool, cuda: torch.device) -> None:
    memory = (allocate_pinned if pinned else allocate)(LAYOUT.pushed_bytes)
    gradient = gradient_on(cuda, memory, LAYOUT)
    gradient.begin()
    value = torch.ones(ELEMENTS, device=cuda)
    assert gradient.keep("first", value) is value
    assert gradient.keep("second", torch.arange(ELEMENTS, device=cuda).float()).device == cuda
    assert gradient.is_finite({})
    there = views(memory, LAYOUT)
    assert there["first"].unique().tolist() == [1.0]
    assert torch.equal(there["second"], torch.arange(ELEMENTS).float())
    value[7] = float("inf")
    gradient.keep("first", value)
    assert not gradient.is_finite({})
    gradient.keep("first", value)
    gradient.zero("first")
    assert gradient.is_finite({})
    assert not there["first"].any()


@pytest.mark.parametrize("pinned", [True, False])
def test_weights_come_to_the_device_in_one_piece(pinned: bool, cuda: torch.device) -> None:
    host = (allocate_pinned if pinned else allocate)(LAYOUT.bytes)
    weights = weights_on(cuda, host, LAYOUT)
    for value in (1, 2):
        host.fill_(value)
        weights.renew()
        weights.settle()
        host.zero_()
        assert weights.memory.unique().tolist() == [value]
