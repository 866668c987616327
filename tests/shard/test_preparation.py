import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.layout import Span
from psgd.shard.preparation import Preparation
from psgd.transport.base import PushId

MEMORY = [torch.zeros(16, dtype=torch.uint8) for _ in range(3)]


def push(slot: int, step: int = 0, incarnation: int = 0) -> PushId:
    return PushId(Slot(slot), Incarnation(incarnation), Step(step))


def add(preparation: Preparation, slot: int, start: int, stop: int, step: int = 0) -> list[tuple[int, int]]:
    common = preparation.add(push(slot, step), MEMORY[slot], Span(start, stop))
    return [(span.start, span.stop) for span in common]


def test_bytes_are_common_once_every_slot_has_them() -> None:
    preparation = Preparation(3)
    assert add(preparation, 2, 0, 8) == []
    assert add(preparation, 0, 4, 12) == []
    assert add(preparation, 1, 0, 16) == [(4, 8)]
    assert add(preparation, 0, 0, 4) == [(0, 4)]
    assert add(preparation, 2, 8, 16) == [(8, 12)]
    assert add(preparation, 0, 12, 16) == [(12, 16)]


def test_the_common_bytes_of_several_pieces_are_several() -> None:
    preparation = Preparation(2)
    for start in (0, 8):
        add(preparation, 0, start, start + 2)
    assert add(preparation, 1, 1, 9) == [(1, 2), (8, 9)]


def test_one_slot_alone_has_everything_in_common_with_itself() -> None:
    assert add(Preparation(1), 0, 4, 8) == [(4, 8)]


def test_slots_in_different_steps_have_nothing_in_common() -> None:
    preparation = Preparation(2)
    add(preparation, 0, 0, 16, step=3)
    assert add(preparation, 1, 0, 16, step=4) == []


def test_the_memory_is_in_slot_order_whoever_came_first() -> None:
    preparation = Preparation(3)
    for slot in (2, 0, 1):
        add(preparation, slot, 0, 4)
    gradients = preparation.gradients
    assert all(gradient is MEMORY[slot] for slot, gradient in enumerate(gradients))
    assert len(gradients) == 3


def test_a_step_that_has_closed_leaves_nothing() -> None:
    preparation = Preparation(2)
    for slot in range(2):
        add(preparation, slot, 0, 16)
    preparation.drop()
    assert preparation.gradients == []
    assert add(preparation, 0, 0, 4, step=1) == []
    assert add(preparation, 1, 0, 16, step=1) == [(0, 4)]


@pytest.mark.parametrize(
    ("other", "memory", "contradicts"),
    [
        (push(0), MEMORY[0], False),
        (push(0), MEMORY[1], True),  # sent again
        (push(0, step=1), MEMORY[0], True),
        (push(0, incarnation=1), MEMORY[0], True),
        (push(1, step=1), MEMORY[0], False),  # that slot has not begun
    ],
)
def test_another_push_of_a_slot_contradicts_the_one_that_it_has_begun(
    other: PushId, memory: torch.Tensor, contradicts: bool
) -> None:
    preparation = Preparation(2)
    add(preparation, 0, 0, 4)
    assert preparation.contradicts(other, memory) is contradicts


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=6, unique=True), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_every_byte_is_common_exactly_once_however_pieces_come(cuts: list[list[int]], order: random.Random) -> None:
    arriving = [(slot, Span(a, b)) for slot, inner in enumerate(cuts) for a, b in pairwise(sorted({0, 40, *inner}))]
    order.shuffle(arriving)
    memory = [torch.zeros(40, dtype=torch.uint8) for _ in cuts]
    preparation, common = Preparation(len(cuts)), []
    for slot, span in arriving:
        common += preparation.add(push(slot), memory[slot], span)
    assert sorted(at for span in common for at in range(span.start, span.stop)) == list(range(40))
