from pathlib import Path

import pytest

from psgd.analysis.comparison import Budget
from psgd.core.corrections import DelayCompensation, GapAware, LagRate
from psgd.core.modes import Async, Sync
from psgd.errors import ConfigurationError
from psgd.experiments.arms import Arm, Comparison, OptimizerChoice, Run, Scheme

SGD = OptimizerChoice("sgd", {"momentum": 0.9})
SYNC, ASYNC = Scheme(Sync()), Scheme(Async())


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (OptimizerChoice("adam"), "adam"),
        (OptimizerChoice("adam", {"betas": [0.9, 0.99], "amsgrad": True}), "adam:betas=[0.9,0.99]:amsgrad=true"),
        (OptimizerChoice("my.pkg:Mine", {"kind": "fast"}), "my.pkg:Mine:kind=fast"),
    ],
)
def test_an_optimizer_is_called_as_it_is_written(choice: OptimizerChoice, name: str) -> None:
    assert str(choice) == name


def test_a_run_has_a_folder_of_its_own() -> None:
    run = Run(Arm(SGD, Scheme(Async(4)), (0.05,)), 0.05, 2)
    assert str(run) == "sgd:momentum=0.9, async:4, lr 0.05, seed 2"
    assert run.folder == Path("sgd_momentum=0.9_async_4", "0.05", "2")


def test_what_a_mode_does_otherwise_is_in_the_name_and_in_the_folder() -> None:
    arm = Arm(SGD, Scheme(Async(4, gather=5), DelayCompensation(adaptive=True)), (0.05,))
    assert str(arm) == "sgd:momentum=0.9, async:4/softsync=5/dca=2:0.95"
    assert arm.folder == "sgd_momentum=0.9_async_4_softsync=5_dca=2_0.95"


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (SYNC, "sync"),
        (Scheme(Sync(2)), "sync+2"),
        (ASYNC, "async"),
        (Scheme(Async(0)), "async:0"),
        (Scheme(Async(gather=5)), "async/softsync=5"),
        (Scheme(Async(), LagRate()), "async/lag-lr"),
        (Scheme(Async(4, gather=2), GapAware()), "async:4/softsync=2/gap=0.999"),
    ],
)
def test_a_mode_is_called_as_it_is_written(scheme: Scheme, name: str) -> None:
    assert str(scheme) == name


def test_runs_come_seed_by_seed() -> None:
    arms = Arm(SGD, SYNC, (0.1, 0.2)), Arm(SGD, ASYNC, (0.1,))
    runs = [(run.arm.scheme, run.lr, run.seed) for run in Comparison(arms, (3, 4), Path("out")).runs()]
    assert runs == [(scheme, lr, seed) for seed in (3, 4) for scheme, lr in [(SYNC, 0.1), (SYNC, 0.2), (ASYNC, 0.1)]]


def test_what_can_not_be_told_apart_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^lrs must differ, got 0.1 2 times$"):
        Arm(SGD, SYNC, (0.1, 0.2, 0.1))
    arm = Arm(SGD, SYNC, (0.1,))
    with pytest.raises(ConfigurationError, match=r"^arms must differ, got sgd:momentum=0.9, sync 2 times$"):
        Comparison((arm, arm), (0,), Path("out"))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"lrs must hold a learning rate for sgd:momentum=0\.9, got none"):
        Arm(SGD, SYNC, ())
    with pytest.raises(ConfigurationError, match="a comparison needs arms and seeds, got 0 and 1"):
        Comparison((), (0,), Path("out"))


def test_a_target_as_the_budget_has_to_be_given() -> None:
    with pytest.raises(ConfigurationError, match="a comparison whose budget is a target needs one, got none"):
        Comparison((Arm(SGD, SYNC, (0.1,)),), (0,), Path("out"), Budget("target"))
