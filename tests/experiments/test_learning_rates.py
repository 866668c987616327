import pytest

from psgd.errors import ConfigurationError
from psgd.experiments.arms import OptimizerChoice
from psgd.experiments.learning_rates import RATES, usual_rates


@pytest.mark.parametrize("name", RATES)
def test_usual_rates_ascend_and_span_a_decade(name: str) -> None:
    rates = usual_rates(OptimizerChoice(name))
    assert list(rates) == sorted(rates)
    assert rates[-1] / rates[0] >= 30


def test_momentum_makes_the_rates_of_sgd_smaller() -> None:
    assert usual_rates(OptimizerChoice("SGD", {"momentum": 0.5})) == (0.015, 0.05, 0.15, 0.5)
    assert usual_rates(OptimizerChoice("sgd", {"momentum": "much"})) == usual_rates(OptimizerChoice("sgd"))
    assert usual_rates(OptimizerChoice("rmsprop", {"momentum": 0.5})) == usual_rates(OptimizerChoice("rmsprop"))


def test_a_name_that_is_no_optimizers_is_told_first() -> None:
    with pytest.raises(ConfigurationError, match=r"^optimizer must be one of .*, got 'adma'; did you mean adam"):
        usual_rates(OptimizerChoice("adma"))
    with pytest.raises(ConfigurationError, match=r"^lrs must be given for muon, .*; try --lrs 'muon=0.001,0.01,0.1'$"):
        usual_rates(OptimizerChoice("muon"))


def test_what_is_not_known_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match=r"lrs must be given for my.pkg:Mine:a=1, .*; try --lrs 'my.pkg:Mine="):
        usual_rates(OptimizerChoice("my.pkg:Mine", {"a": 1}))
