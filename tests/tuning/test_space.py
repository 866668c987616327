import math

import pytest

from psgd.errors import ConfigurationError
from psgd.tuning.space import Choices, Range, Space, values_of


def test_choices_that_are_no_scalars_are_labelled_by_their_json() -> None:
    choices = Choices((None, "adam", 0.5, True, [0.9, 0.99], ("0:3x",)))
    assert choices.labels == (None, "adam", 0.5, True, "[0.9, 0.99]", '["0:3x"]')
    assert [choices.value_of(label) for label in choices.labels] == list(choices.values)


def test_true_and_one_are_two_choices() -> None:
    assert Choices((True, 1)).values == (True, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [((), "at least one value, got none"), ((0.1, 0.2, 0.1), "each value once, got 0.1 twice")],
)
def test_choices_that_are_none_are_refused(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Choices(values)


@pytest.mark.parametrize(
    ("bounds", "kind", "words"),
    [
        ((1.0, 1.0), {}, "LOW:HIGH with LOW < HIGH, got 1:1"),
        ((2.0, 1.0), {}, "LOW:HIGH with LOW < HIGH, got 2:1"),
        ((0.0, math.inf), {}, "LOW:HIGH with LOW < HIGH, got 0:inf"),
        ((0.0, 1.0), {"log": True}, "logarithmic range must begin above 0, got 0:1"),
        ((1.0, 2.5), {"whole": True}, "range of whole numbers must have such bounds, got 1:2.5"),
    ],
)
def test_a_range_with_nothing_in_it_is_refused(bounds: tuple[float, float], kind: dict[str, bool], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Range(*bounds, **kind)


def test_the_values_of_a_point_are_the_users_own() -> None:
    space: Space = {
        "betas": Choices(([0.9, 0.99], [0.5, 0.9])),
        "batch_size": Range(8, 64, whole=True),
        "lr": Range(0, 1),
    }
    values = values_of(space, {"betas": "[0.5, 0.9]", "batch_size": 16.0, "lr": 1})
    assert values == {"betas": [0.5, 0.9], "batch_size": 16, "lr": 1.0}
    assert (type(values["batch_size"]), type(values["lr"])) == (int, float)
