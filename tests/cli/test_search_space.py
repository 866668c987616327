from typing import Any

import pytest

from psgd.cli.search_space import override, parse_space
from psgd.cli.train_config import TrainConfig
from psgd.errors import ConfigurationError
from psgd.tuning.space import Choices, Domain, Range


@pytest.mark.parametrize(
    ("name", "value", "domain"),
    [
        ("lr", "log:1e-4:1e-1", Range(1e-4, 1e-1, log=True)),
        ("lr", "uniform:.5:1.", Range(0.5, 1.0)),
        ("lr", "int:1:2", Range(1, 2, whole=True)),
        ("batch_size", "logint:16:256", Range(16, 256, log=True, whole=True)),
        ("lr", "0.1, 1e-3", Choices((0.1, 0.001))),
        ("lr", [0.1, "1e-3"], Choices((0.1, 0.001))),
        ("workers", 2, Choices((2,))),
        ("mode", "sync,async", Choices(("sync", "async"))),
        ("staleness", "none,0,4", Choices((None, 0, 4))),
        ("staleness", [None, 0, 4], Choices((None, 0, 4))),
        ("overlap", "true,false", Choices((True, False))),
        ("wire", "float32,topk:0.01", Choices(("float32", "topk:0.01"))),
        ("model", "my.pkg:factory,mlp", Choices(("my.pkg:factory", "mlp"))),
        ("model", "cnn:1:2", Choices(("cnn:1:2",))),
        ("straggler", "[],[0:3x,1:50ms]", Choices(((), ("0:3x", "1:50ms")))),
        ("optimizer_args.momentum", "uniform:0:0.99", Range(0.0, 0.99)),
        ("optimizer_args.weight_decay", "0,1e-4,none", Choices((0, 1e-4, "none"))),
        ("optimizer_args.betas", "[0.9,0.99],[0.5,0.9]", Choices(([0.9, 0.99], [0.5, 0.9]))),
    ],
)
def test_a_domain_is_read_by_the_type_of_its_option(name: str, value: Any, domain: Domain) -> None:
    assert parse_space({name: value}) == {name: domain}


def test_options_may_be_written_as_flags_are() -> None:
    assert list(parse_space({"batch-size": "8,16", "optimizer-args.weight_decay": "0,1"})) == [
        "batch_size",
        "optimizer_args.weight_decay",
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"lrr": "1,2"}, ["space", "'lrr'", "did you mean lr?"]),
        ({"out": "a,b"}, ["space", "'out'"]),
        ({"optimizer_args": "a,b"}, ["space must name one key of optimizer_args, as in optimizer_args.KEY=A,B,..."]),
        ({"lr.x": "1,2"}, ["space: lr has no keys, got 'lr.x'"]),
        ({"batch-size": "8,16", "batch_size": "4"}, ["space must name each setting once, got batch_size twice"]),
        ({"lr": "0.1,fast"}, ["space: lr must be a number, got 'fast'"]),
        ({"lr": ""}, ["space: lr must have no empty item, got ''"]),
        ({"lr": "0.1,,0.2"}, ["space: lr must have no empty item, got '0.1,,0.2'"]),
        ({"lr": []}, ["space: lr: choices must hold at least one value"]),
        ({"lr": "0.1,0.1"}, ["space: lr: choices must name each value once, got 0.1 twice"]),
        ({"lr": "log:0:1"}, ["space: lr: a logarithmic range must begin above 0"]),
        ({"lr": "log:1e-4"}, ["space: lr: a range must be uniform|log|int|logint:LOW:HIGH, got 'log:1e-4'"]),
        ({"lr": "loguniform:1e-4:1"}, ["space: lr: a range", "'loguniform'", "did you mean uniform?"]),
        ({"optimizer_args.momentum": "unif:0:1"}, ["space: optimizer_args.momentum", "did you mean uniform?"]),
        ({"workers": "1,1.5"}, ["space: workers must be an integer, got '1.5'"]),
        ({"workers": "uniform:1:4"}, ["space: workers: it takes whole numbers: try int:1:4"]),
        ({"batch_size": "log:8:64"}, ["space: batch_size: it takes whole numbers: try logint:8:64"]),
        ({"mode": "log:1:2"}, ["space: mode: it is no number: list its choices"]),
        ({"mode": "sync,bsp"}, ["space: mode must be sync or async, got 'bsp'"]),
    ],
)
def test_what_can_not_be_searched_is_refused(entries: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_space(entries)
    for word in words:
        assert word in str(refusal.value)


def test_a_trial_has_its_values_in_place_of_the_shared_ones() -> None:
    shared = TrainConfig(lr=0.1, seed=3, optimizer_args={"eps": 1e-8, "weight_decay": 0.5})
    values = {"lr": 0.2, "optimizer_args.weight_decay": 0.0, "optimizer_args.betas": [0.5, 0.9]}
    assert override(shared, values) == TrainConfig(
        lr=0.2, seed=3, optimizer_args={"eps": 1e-8, "weight_decay": 0.0, "betas": [0.5, 0.9]}
    )
    assert shared.optimizer_args == {"eps": 1e-8, "weight_decay": 0.5}


def test_values_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="staleness must be left out with mode sync, got 4"):
        override(TrainConfig(mode="async", staleness=4), {"mode": "sync"})
