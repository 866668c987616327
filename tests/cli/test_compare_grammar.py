import pytest

from psgd.cli.compare_grammar import parse_mode, parse_optimizer, parse_rates
from psgd.core.corrections import DelayCompensation, GapAware, LagRate
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Sync
from psgd.errors import ConfigurationError
from psgd.experiments.arms import OptimizerChoice, Scheme
from psgd.experiments.learning_rates import usual_rates

ADAM, SGD = OptimizerChoice("adam"), OptimizerChoice("sgd", {"momentum": 0.9})


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("sync", Scheme(Sync())),
        ("sync+1", Scheme(Sync(1))),
        ("async", Scheme(Async())),
        ("async:0", Scheme(Async(0))),
        ("async:4", Scheme(Async(4))),
        ("async/softsync=5", Scheme(Async(gather=5))),
        ("async/lag-lr", Scheme(Async(), LagRate())),
        ("async:4/softsync=5/lag-lr", Scheme(Async(4, 5), LagRate())),
        ("async:0/dc=0.5", Scheme(Async(0), DelayCompensation(0.5))),
        ("async/softsync=2/dca=3:0.5", Scheme(Async(gather=2), DelayCompensation(3.0, adaptive=True, decay=0.5))),
        ("async/gap=0.99", Scheme(Async(), GapAware(0.99))),
        ("sync/local=8", Scheme(Sync(), local_steps=LocalSteps(8))),
        ("async:2/softsync=3/lag-lr/local=4:1:0", Scheme(Async(2, 3), LagRate(), LocalSteps(4, 1.0, 0.0))),
    ],
)
def test_a_mode_is_read_and_written_alike(text: str, scheme: Scheme) -> None:
    assert parse_mode(text) == scheme
    assert str(scheme) == text


def test_what_follows_a_mode_may_come_in_any_order() -> None:
    assert parse_mode("async/gap/softsync=2") == Scheme(Async(gather=2), GapAware())


@pytest.mark.parametrize(
    "text",
    [
        *("", "synch", "sync:1", "async+1", "async:-1", "sync+", "async:4x", "async/", "/lag-lr", "async//gap"),
        *("async/softsync", "async/softsync=", "async/softsync=x", "async/lag-lr=1", "async/dc=", "async/dc=x"),
        *("async/dc=1:2", "async/dca=1:2:3", "async/gap=0.9:1", "async/dc/gap", "async/softsync=2/softsync=3"),
        *("sync/softsync=2", "sync/lag-lr", "sync+1/gap", "async/fast", "sync/local", "sync/local=2/local=2"),
        *("sync+\u0663", "async:\uff14", "async/softsync=\uff12"),  # digits, but not the usual ones
    ],
)
def test_another_word_for_a_mode_is_told_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_mode(text)
    assert str(caught.value) == (
        "modes must be sync[+BACKUPS] or async[:STALENESS], then, each behind a slash, local=H[:LR[:MOMENTUM]], and "
        "with async softsync=K and one of lag-lr, dc[=LAMBDA], dca[=LAMBDA0[:M]] or gap[=BETA]; "
        f"got {text!r}"
    )


def test_a_number_out_of_range_is_told_what_it_may_be() -> None:
    with pytest.raises(ConfigurationError, match=r"^modes: 'async/softsync=0': gather must be >= 1, got 0$"):
        parse_mode("async/softsync=0")
    with pytest.raises(ConfigurationError, match=r"^modes: 'async/gap=1': gap-aware decay must be in "):
        parse_mode("async/gap=1")


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
