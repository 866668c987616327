import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psgd.data.sampler import BatchPlan, draw_seed, seed_everything
from psgd.errors import ConfigurationError

PLANS = st.builds(
    BatchPlan,
    samples=st.integers(64, 200),
    slots=st.integers(1, 4),
    batch_size=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    shuffle=st.booleans(),
)


@given(PLANS, st.integers(0, 3))
def test_no_sample_is_drawn_twice_in_an_epoch(plan: BatchPlan, epoch: int) -> None:
    first = epoch * plan.steps_per_epoch
    drawn = [
        index
        for step, slot in product(range(first, first + plan.steps_per_epoch), range(plan.slots))
        for index in plan.indices(step, slot).tolist()
    ]
    assert len(drawn) == len(set(drawn)) == plan.steps_per_epoch * plan.slots * plan.batch_size
    assert len(drawn) + plan.slots * plan.batch_size > plan.samples  # less than a step is dropped
    assert set(drawn) <= set(range(plan.samples))


@given(PLANS, st.data())
def test_a_batch_does_not_depend_on_what_was_drawn_before(plan: BatchPlan, data: st.DataObject) -> None:
    draws = list(product(range(3 * plan.steps_per_epoch), range(plan.slots)))[:40]
    in_order = {draw: plan.indices(*draw).tolist() for draw in draws}
    for draw in data.draw(st.permutations(draws)):
        assert plan.indices(*draw).tolist() == in_order[draw]


def test_the_plan_draws_what_it_always_drew() -> None:
    plan = BatchPlan(samples=20, slots=2, batch_size=3, seed=7)
    assert plan.steps_per_epoch == 3
    assert [plan.indices(step, slot).tolist() for step in (0, 3) for slot in (0, 1)] == [
        [10, 18, 7],
        [17, 9, 16],
        [10, 18, 19],
        [14, 7, 4],
    ]


def test_without_shuffling_an_epoch_is_the_order_of_the_data_set() -> None:
    plan = BatchPlan(samples=10, slots=2, batch_size=2, seed=0, shuffle=False)
    drawn = [plan.indices(step, slot).tolist() for step in range(3) for slot in range(2)]
    assert drawn == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1], [2, 3]]


def test_epochs_and_seeds_have_permutations_of_their_own() -> None:
    plan = BatchPlan(samples=100, slots=1, batch_size=100, seed=0)
    other = BatchPlan(samples=100, slots=1, batch_size=100, seed=1)
    permutations = [plan.indices(0, 0), plan.indices(1, 0), other.indices(0, 0)]
    assert len({tuple(permutation.tolist()) for permutation in permutations}) == 3


def test_writing_into_a_batch_changes_no_other_batch() -> None:
    plan = BatchPlan(samples=10, slots=1, batch_size=10, seed=0)
    before = plan.indices(0, 0).tolist()
    plan.indices(0, 0).zero_()
    assert plan.indices(0, 0).tolist() == before


def test_a_data_set_smaller_than_a_step_is_refused() -> None:
    expected = r"^slots \* batch_size must be <= the 11 samples of the data set, got 3 \* 4 = 12; lower one of them$"
    with pytest.raises(ConfigurationError, match=expected):
        BatchPlan(samples=11, slots=3, batch_size=4, seed=0)
    assert BatchPlan(samples=12, slots=3, batch_size=4, seed=0).steps_per_epoch == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots must be >= 1, got 0"),
        ({"batch_size": -1}, "batch_size must be >= 1, got -1"),
        ({"seed": -1}, "seed must be >= 0 and < 2**63, got -1"),
        ({"seed": 2**63}, f"seed must be >= 0 and < 2**63, got {2**63}"),
    ],
)
def test_a_number_out_of_range_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        replace(BatchPlan(samples=10, slots=1, batch_size=1, seed=0), **change)  # type: ignore[arg-type]  # shuffle
    assert str(caught.value) == message


def test_the_seed_of_a_draw_is_what_it_always_was() -> None:
    assert draw_seed(0, 0, 0) == 12663949585962871607
    assert draw_seed(2**63 - 1, 10**12, 1000) == 5344844273060387548
    assert draw_seed(1, 2, 3) != draw_seed(2, 1, 3) != draw_seed(3, 2, 1)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 2**20))
def test_every_seed_of_a_draw_fits_all_generators(seed: int, step: int, slot: int) -> None:
    assert 0 <= draw_seed(seed, step, slot) < 2**64
    seed_everything(seed, step, slot)


def draw_from_all() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_seeding_sets_torch_numpy_and_random() -> None:
    seed_everything(3, 1, 2)
    first = draw_from_all()
    assert draw_from_all() != first
    seed_everything(3, 1, 2)
    assert draw_from_all() == first
    seed_everything(3, 2, 1)
    assert all(one != other for one, other in zip(draw_from_all(), first, strict=True))


@pytest.mark.gpu
def test_seeding_sets_cuda() -> None:
    seed_everything(3, 1, 2)
    first = torch.rand(4, device="cuda")
    seed_everything(3, 1, 2)
    assert torch.equal(torch.rand(4, device="cuda"), first)
