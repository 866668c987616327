import os

import pytest
import torch
from torch import Tensor

from psgd.errors import ResourceError
from psgd.transport.shm.overlay import Overlay
from psgd.transport.shm.segment import PAGE, Segment
from tests.transport.shm.footprint import footprint

SIZE = 4 * PAGE


def drawn(size: int) -> Tensor:
    return torch.randint(1, 256, (size,), generator=torch.Generator().manual_seed(size)).to(torch.uint8)


def standing(size: int = SIZE) -> Segment:
    """Memory as a shard shows it."""
    segment = Segment.create(size)
    segment.memory.copy_(drawn(size))
    segment.seal_against_writers()
    return segment


def test_an_overlay_is_zeroed_memory_of_any_size() -> None:
    for size in (0, 1, PAGE, PAGE + 1):
        memory = Overlay(size).memory
        assert memory.shape == (size,)
        assert not memory.any()
        memory.fill_(3)


def test_what_the_owner_writes_is_seen_then_and_later() -> None:
    segment, overlay = standing(), Overlay(SIZE)
    assert overlay.lay(segment.descriptor, 0, 0, SIZE) == (0, SIZE)
    assert torch.equal(overlay.memory, segment.memory)
    segment.memory[PAGE + 5] = 0
    assert overlay.memory[PAGE + 5] == 0


def test_what_is_written_to_it_stays_here_and_hides_that_page_alone() -> None:
    segment, overlay = standing(), Overlay(SIZE)
    overlay.lay(segment.descriptor, 0, 0, SIZE)
    before = segment.memory.clone()
    overlay.memory[PAGE] = 77
    assert torch.equal(segment.memory, before)
    segment.memory.zero_()
    assert overlay.memory[PAGE] == 77
    assert torch.equal(overlay.memory[PAGE + 1 : 2 * PAGE], before[PAGE + 1 : 2 * PAGE])
    assert not overlay.memory[:PAGE].any()
    assert not overlay.memory[2 * PAGE :].any()


@pytest.mark.parametrize(
    ("start", "stop", "shown"),
    [
        (0, SIZE, (0, SIZE)),
        (256, SIZE, (PAGE, SIZE)),
        (0, SIZE - 256, (0, SIZE - PAGE)),
        (PAGE - 1, 3 * PAGE + 1, (PAGE, 3 * PAGE)),
        (PAGE + 1, 2 * PAGE + 1, None),
        (100, 200, None),
        (PAGE - 1, PAGE + 1, None),
        (PAGE, PAGE, None),
        (PAGE - 100, 2 * PAGE, (PAGE, 2 * PAGE)),
    ],
)
def test_whole_pages_are_shown_and_broken_ones_stay_ones_own(
    start: int, stop: int, shown: tuple[int, int] | None
) -> None:
    segment, overlay = standing(SIZE + PAGE), Overlay(SIZE)
    overlay.memory.fill_(9)
    at = PAGE + start % PAGE  # where the span's first byte lies in the segment
    first, last = overlay.lay(segment.descriptor, at, start, stop)
    assert (first, last) == ((start, start) if shown is None else shown)
    segment.memory[at + 5] = 0  # later
    expected = torch.full((SIZE,), 9, dtype=torch.uint8)
    expected[first:last] = segment.memory[at + first - start : at + last - start]
    assert torch.equal(overlay.memory, expected)


def test_several_segments_lie_side_by_side_in_contiguous_memory() -> None:
    overlay, cut = Overlay(SIZE), PAGE + 512  # the second part begins in the middle of a page
    left, right = standing(cut), standing(512 + SIZE - cut)
    assert overlay.lay(left.descriptor, 0, 0, cut) == (0, PAGE)
    assert overlay.lay(right.descriptor, 512, cut, SIZE) == (2 * PAGE, SIZE)
    overlay.memory[PAGE : 2 * PAGE] = 0
    left.memory[17] = 1
    right.memory[-1] = 2
    expected = torch.cat([left.memory[:PAGE], torch.zeros(PAGE, dtype=torch.uint8), right.memory[PAGE:]])
    assert torch.equal(overlay.memory, expected)
    assert overlay.memory.is_contiguous()


def test_an_overlay_needs_the_descriptor_only_while_it_is_laid() -> None:
    segment, overlay = standing(), Overlay(SIZE)
    theirs = os.dup(segment.descriptor)
    overlay.lay(theirs, 0, 0, SIZE)
    os.close(theirs)
    memory = segment.memory
    del segment
    assert torch.equal(overlay.memory, memory)


def test_all_of_it_goes_with_its_memory() -> None:
    before = footprint()
    segment, overlay = standing(), Overlay(SIZE)
    overlay.lay(segment.descriptor, 0, 0, SIZE)
    memory = overlay.memory
    del segment, overlay
    assert footprint().mappings == before.mappings + 1
    assert torch.equal(memory, drawn(SIZE))
    del memory
    assert footprint() == before


def test_what_the_kernel_refuses_is_a_resource_error() -> None:
    segment, overlay = standing(), Overlay(SIZE)
    with pytest.raises(ResourceError, match="weights can not be mapped: Invalid argument"):
        overlay.lay(segment.descriptor, 256, 0, SIZE)  # another place in the page
    with pytest.raises(ResourceError, match="weights can not be mapped: Bad file descriptor"):
        overlay.lay(2**20, 0, 0, SIZE)


def test_memory_that_is_not_there_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match=r"^1125899906842624 bytes of memory are wanted: Cannot allocate memory$"):
        Overlay(2**50)


def test_what_was_written_to_is_found_and_what_the_owner_writes_is_not() -> None:
    segment = Segment.create(4 * PAGE)
    overlay = Overlay(6 * PAGE)
    overlay.lay(segment.descriptor, 0, PAGE, 5 * PAGE)
    assert overlay.memory.sum() == 0
    segment.memory[:] = 1
    overlay.memory[0] = overlay.memory[5 * PAGE] = 2  # this process' own
    assert overlay.memory[PAGE] == 1
    assert overlay.written() is None
    overlay.memory[3 * PAGE + 7] = 2
    assert overlay.written() == 3 * PAGE
