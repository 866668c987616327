from itertools import product

import numpy as np
import pytest

from psgd.config import Straggler
from psgd.data.sampler import delay_seed, draw_seed
from psgd.durations import constant, parse_duration
from psgd.worker.straggling import lingering, without_lingering

TRANSIENT = Straggler(None, parse_duration("exp:50ms"))


def test_a_factor_stretches_what_was_computed_and_a_delay_is_added() -> None:
    slow = [Straggler(1, constant(0.25), factor=3.0)]
    assert lingering(slow, computed_s=0.5, seed=0, step=0, slot=1) == 0.5 * (3.0 - 1) + 0.25
    assert lingering(slow, computed_s=0.5, seed=0, step=0, slot=0) == 0.0
    assert lingering([], computed_s=0.5, seed=0, step=0, slot=0) == 0.0


def test_a_delay_is_drawn_from_seed_step_and_slot_alone() -> None:
    where = list(product((0, 1), (0, 1, 2), (0, 1)))
    first = [lingering([TRANSIENT], 1.0, *each) for each in where]
    assert [lingering([TRANSIENT], 1.0, *each) for each in reversed(where)] == first[::-1]
    assert len(set(first)) == len(where)
    assert first[0] == 0.05 * np.random.default_rng(delay_seed(0, 0, 0)).standard_exponential()


def test_neither_the_global_generators_nor_the_batches_draws_have_a_part_in_it() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    lingering([TRANSIENT], 1.0, 0, 0, 0)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]
    assert delay_seed(0, 1, 2) != draw_seed(0, 1, 2)


def test_a_slot_that_all_stragglers_slow_pays_for_each_of_them_in_whatever_order_they_are_named() -> None:
    own = Straggler(1, constant(0.25), factor=3.0)
    alone = lingering([TRANSIENT], 0.5, 0, 0, 1)
    assert lingering([TRANSIENT, own], 0.5, 0, 0, 1) == lingering([own, TRANSIENT], 0.5, 0, 0, 1) == alone + 1.25
    assert lingering([TRANSIENT, own], 0.5, 0, 0, 0) == lingering([TRANSIENT], 0.5, 0, 0, 0)


def test_an_own_delay_at_random_leaves_everybodys_as_it_is() -> None:
    own = Straggler(1, parse_duration("exp:1"))
    both = lingering([own, TRANSIENT], 0.0, 0, 0, 1)
    everybodys = lingering([TRANSIENT], 0.0, 0, 0, 1)
    generator = np.random.default_rng(delay_seed(0, 0, 1))
    generator.standard_exponential()
    assert both == pytest.approx(everybodys + generator.standard_exponential(), rel=1e-15)


def test_what_was_added_can_be_taken_away() -> None:
    stragglers = [TRANSIENT, Straggler(1, parse_duration("exp:1"), factor=3.0)]
    for computed_s, step, slot in product((0.0, 0.5), (0, 1), (0, 1)):
        took = computed_s + lingering(stragglers, computed_s, 0, step, slot)
        assert without_lingering(stragglers, took, 0, step, slot) == pytest.approx(computed_s, abs=1e-12)
    assert without_lingering([], 0.5, 0, 0, 0) == 0.5
