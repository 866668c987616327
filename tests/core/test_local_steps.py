import doctest

import pytest

from psgd.core import local_steps
from psgd.core.local_steps import LocalSteps, mini_batches, parse_local
from psgd.core.modes import Rules, Sync
from psgd.errors import ConfigurationError


def test_the_docstrings_examples_run_as_they_stand_there() -> None:
    assert doctest.testmod(local_steps)[0] == 0


def test_the_outer_optimizer_is_that_of_the_paper_unless_told_otherwise() -> None:
    assert LocalSteps(8) == LocalSteps(steps=8, lr=0.7, momentum=0.9)


@pytest.mark.parametrize(
    ("text", "steps", "short"),
    [
        ("8", LocalSteps(8), "8"),
        ("1:0.7", LocalSteps(1), "1"),
        ("500:0.5", LocalSteps(500, 0.5), "500:0.5"),
        ("8:1:0", LocalSteps(8, 1.0, 0.0), "8:1:0"),
        ("8:0.7:0.5", LocalSteps(8, 0.7, 0.5), "8:0.7:0.5"),
        ("2:1e-3:0.9", LocalSteps(2, 0.001), "2:0.001"),
        ("2:1e+1:.5", LocalSteps(2, 10.0, 0.5), "2:10:0.5"),
        ("2:0.30000000000000004", LocalSteps(2, 0.1 + 0.2), "2:0.30000000000000004"),
    ],
)
def test_local_steps_are_read_as_they_are_written(text: str, steps: LocalSteps, short: str) -> None:
    assert parse_local(text) == steps
    assert str(steps) == short
    assert parse_local(short) == steps


@pytest.mark.parametrize("text", ["", "x", "-8", "8:", "8:0.7:", "8:0.7:0.9:1", "8:x", "8:-1", " 8", "1.5", "8/2"])
def test_another_way_of_writing_names_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^local must be STEPS, STEPS:LR or STEPS:LR:MOMENTUM, such as 8 or"):
        parse_local(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "local steps must be a whole number >= 1, got 0"),
        ({"steps": 1.5}, "local steps must be a whole number >= 1, got 1.5"),
        ({"steps": True}, "local steps must be a whole number >= 1, got True"),
        ({"steps": 1, "lr": 0.0}, "the outer lr of local steps must be a finite number > 0, got 0.0"),
        ({"steps": 1, "lr": float("inf")}, "the outer lr of local steps must be a finite number > 0, got inf"),
        ({"steps": 1, "lr": "1"}, "the outer lr of local steps must be a finite number > 0, got '1'"),
        ({"steps": 1, "momentum": 1.0}, "the outer momentum of local steps must be >= 0 and < 1, got 1.0"),
        ({"steps": 1, "momentum": -0.1}, "the outer momentum of local steps must be >= 0 and < 1, got -0.1"),
        ({"steps": 1, "momentum": float("nan")}, "the outer momentum of local steps must be >= 0 and < 1, got nan"),
    ],
)
def test_a_number_out_of_range_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LocalSteps(**arguments)
    assert str(caught.value) == message


def test_what_evaluations_make_of_the_learning_rate_does_not_concern_the_outer_one() -> None:
    plain = Rules(Sync(), slots=1, shards=1, steps=1)
    local = Rules(Sync(), slots=1, shards=1, steps=1, local_steps=LocalSteps(8))
    assert [rules.update_factor(0.5) for rules in (plain, local)] == [0.5, 1.0]
    assert (
        [rules.mini_batches for rules in (plain, local)] == [1, 8] == [mini_batches(None), mini_batches(LocalSteps(8))]
    )


def test_the_norm_of_what_slots_push_is_not_to_be_clipped() -> None:
    message = r"^clip_norm must be left out with local steps, where slots clip the gradients, got 1.0$"
    with pytest.raises(ConfigurationError, match=message):
        Rules(Sync(), slots=1, shards=1, steps=1, clip_norm=1.0, local_steps=LocalSteps(8))
