import pytest

from psgd.cli.compare_grammar import parse_mode, parse_optimizer, parse_rates
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ConfigurationError
from psgd.experiments.arms import OptimizerChoice, mode_name
from psgd.experiments.learning_rates import usual_rates

ADAM, SGD = OptimizerChoice("adam"), OptimizerChoice("sgd", {"momentum": 0.9})


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("sync", Sync()),
        ("sync+1", Sync(1)),
        ("async", Async()),
        ("async:0", Async(0)),
        ("async:4", Async(4)),
    ],
)
def test_a_mode_is_read_and_written_alike(text: str, mode: Mode) -> None:
    assert parse_mode(text) == mode
    assert mode_name(mode) == text


@pytest.mark.parametrize("text", ["", "synch", "sync:1", "async+1", "async:-1", "sync+", "async:4x"])
def test_another_word_for_a_mode_is_told_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^modes must be sync, .*, async or async:STALENESS, got ") as caught:
        parse_mode(text)
    assert str(caught.value).endswith(f"got {text!r}")


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("adam", "adam", {}),
        ("sgd:momentum=0.9:nesterov=true", "sgd", {"momentum": 0.9, "nesterov": True}),
        ("adam:betas=[0.9,0.99]", "adam", {"betas": [0.9, 0.99]}),
        ("my.pkg:Mine", "my.pkg:Mine", {}),
        ("my.pkg:Mine:kind=fast:eps=1e-8", "my.pkg:Mine", {"kind": "fast", "eps": 1e-8}),
    ],
)
def test_an_optimizer_is_read_and_written_alike(text: str, name: str, args: dict[str, object]) -> None:
    choice = parse_optimizer(text)
    assert choice == OptimizerChoice(name, args)
    assert parse_optimizer(str(choice)) == choice


@pytest.mark.parametrize("text", ["", ":momentum=0.9", "sgd:momentum=", "sgd:=0.9", "sgd:momentum=0.9:nesterov", "a=1"])
def test_what_is_no_optimizer_is_told_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^optimizers must be written NAME or NAME:.*, got '{text}'$"):
        parse_optimizer(text)


@pytest.mark.parametrize(
    ("texts", "rates"),
    [
        (["0.1", "1e-2"], [(0.1, 0.01), (0.1, 0.01)]),
        (["adam=0.001", "0.002", "sgd=0.5"], [(0.001, 0.002), (0.5,)]),
        (["0.1", "adam=0.001"], [(0.001,), (0.1,)]),
        (["sgd:momentum=0.9=0.5", "adam=0.1"], [(0.1,), (0.5,)]),
        (["adam=0.1"], [(0.1,), usual_rates(SGD)]),
        ([], [usual_rates(ADAM), usual_rates(SGD)]),
    ],
)
def test_rates_belong_to_the_optimizer_before_them(texts: list[str], rates: list[tuple[float, ...]]) -> None:
    assert parse_rates(texts, [ADAM, SGD]) == rates


def test_an_optimizer_as_written_goes_before_its_bare_name() -> None:
    assert parse_rates(["sgd=0.1", "sgd:momentum=0.9=0.5"], [OptimizerChoice("sgd"), SGD]) == [(0.1,), (0.5,)]


@pytest.mark.parametrize("text", ["fast", "0", "-0.1", "nan", "inf", "adam=", "adam=x"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^lrs must be numbers > 0, .*, got '{text}'$"):
        parse_rates([text], [ADAM])


def test_rates_of_nobody_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"adm.*adam"):
        parse_rates(["adm=0.1"], [ADAM, SGD])
