import errno
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from psgd.config import Clip, Placement, Straggler, Training
from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.modes import Async, Sync
from psgd.durations import parse_duration
from psgd.errors import ConfigurationError
from psgd.planning import (
    check_folder,
    check_schedule,
    check_shards,
    check_update,
    count_samples,
    data_factory,
    describe,
    describe_timing,
    explain_copies,
    first_model,
    keeps_whole,
    new_folder,
    rehearse,
)
from psgd.runlog import FILE_NAME
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from psgd.training.metrics import resolve_metrics
from psgd.training.optimizers import resolve_optimizer
from psgd.transport.flat import layout_of, tensors_of
from tests.jobs import make_job

DATA = TensorDataset(torch.zeros(6, 2), torch.zeros(6, 1))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index, index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def make_model() -> nn.Module:
    return nn.Linear(2, 1)


def test_data_may_be_given_as_it_is_or_by_a_function() -> None:
    assert data_factory("train_data", DATA)() is DATA
    assert data_factory("train_data", lambda: DATA)() is DATA
    assert type(data_factory("train_data", Numbers)()) is Numbers
    assert count_samples("train_data", lambda: DATA) == 6


@pytest.mark.parametrize(
    ("data", "name"),
    [(DataLoader(DATA), "DataLoader"), (Stream(), "Stream"), (7, "int")],
)
def test_what_is_no_data_set_is_refused(data: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^train_data must be a map-style data set .*, got {name}$"):
        data_factory("train_data", data)


def test_a_function_must_make_a_data_set_with_samples() -> None:
    with pytest.raises(ConfigurationError, match=r"^val_data must make a map-style data set .*, got int$"):
        count_samples("val_data", lambda: 7)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match=r"^val_data must have samples, got an empty TensorDataset$"):
        count_samples("val_data", lambda: TensorDataset(torch.zeros(0)))


def test_the_first_weights_are_those_of_the_seed_and_nothing_else_is_drawn() -> None:
    before = torch.get_rng_state()
    first, second, other = (first_model(make_model, seed, None) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weight = tensors_of(first)["weight"]
    assert torch.equal(weight, tensors_of(second)["weight"])
    assert not torch.equal(weight, tensors_of(other)["weight"])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(weight, tensors_of(make_model())["weight"])


def test_a_warm_start_replaces_the_seeds_weights(tmp_path: Path) -> None:
    weights = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([5.0])}
    save_file(weights, tmp_path / "first.safetensors")
    for source in (weights, tmp_path / "first.safetensors", str(tmp_path / "first.safetensors")):
        model = first_model(make_model, 0, source)
        assert {name: tensor.tolist() for name, tensor in tensors_of(model).items()} == {
            "weight": [[3.0, 4.0]],
            "bias": [5.0],
        }


def test_a_warm_start_must_fit() -> None:
    with pytest.raises(ConfigurationError, match=r"^weights must fit the model Linear, got missing: bias"):
        first_model(make_model, 0, {"weight": torch.zeros(1, 3)})


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^model: ReLU must have at least one parameter to train, got none$"):
        first_model(nn.ReLU, 0, None)


def too_late(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    raise ValueError("too late")


class Rateless(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def test_an_optimizer_without_a_learning_rate_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^optimizer must have an lr in each group.* got Rateless$"):
        check_update(make_model(), Rateless)


def test_optimizer_and_schedule_are_tried_before_anything_starts() -> None:
    model, sgd = make_model(), resolve_optimizer("sgd", 0.1, {})
    made = check_update(model, sgd)
    assert type(made) is torch.optim.SGD
    check_schedule(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3), made)
    with pytest.raises(ConfigurationError, match=r"^optimizer: the factory must return .*, got int$"):
        check_update(model, lambda params: 7)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match=r"^lr_scheduler must make .*, got int$"):
        check_schedule(lambda optimizer: 7, made)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match=r"^lr_scheduler must not be torch's ReduceLROnPlateau"):
        check_schedule(torch.optim.lr_scheduler.ReduceLROnPlateau, made)
    with pytest.raises(
        ConfigurationError, match=r"^lr_scheduler fails on the optimizer: ValueError: too late \(test_pl"
    ):
        check_schedule(too_late, made)
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=5, cycle_momentum=False)
    check_schedule(one_cycle, made, steps=5)
    with pytest.raises(ConfigurationError, match=r"^lr_scheduler is made for 5 steps .*, the run has 6"):
        check_schedule(one_cycle, made, steps=6)


def test_tensors_stay_whole_only_where_the_optimizer_needs_them() -> None:
    layout = layout_of(tensors_of(make_model()))
    sgd, adafactor = resolve_optimizer("sgd", 0.1, {}), resolve_optimizer("adafactor", 0.1, {})
    assert keeps_whole("auto", sgd, layout) is False
    assert keeps_whole("auto", adafactor, layout) is True
    assert keeps_whole("whole", sgd, layout) is True
    assert keeps_whole("sliced", sgd, layout) is False
    with pytest.raises(ConfigurationError, match="layout must be auto or whole with optimizer adafactor, got sliced"):
        keeps_whole("sliced", adafactor, layout)
    with pytest.raises(ConfigurationError, match=r"^layout must be auto, sliced or whole, got 'cut'$"):
        keeps_whole("cut", sgd, layout)  # type: ignore[arg-type]


def test_to_clip_tensors_by_their_norm_keeps_them_whole() -> None:
    layout, sgd = layout_of(tensors_of(make_model())), resolve_optimizer("sgd", 0.1, {})
    assert keeps_whole("auto", sgd, layout, Clip(norm=1.0)) is False
    assert keeps_whole("auto", sgd, layout, Clip(tensor_norm=1.0)) is True
    with pytest.raises(ConfigurationError, match=r"^layout must be whole or auto to clip by tensor_norm, got sliced$"):
        keeps_whole("sliced", sgd, layout, Clip(tensor_norm=1.0))


def test_a_metric_that_does_not_fit_is_refused_by_a_rehearsal() -> None:
    metrics = resolve_metrics(["auroc"])
    training = Training(nn.functional.mse_loss, batch_size=2, metrics=metrics)
    with pytest.raises(ConfigurationError, match=r"^metric auroc "):
        rehearse(lambda: nn.Linear(3, 1), training, pairs)


def test_what_an_optimizers_factory_raises_is_said_on_one_line() -> None:
    def fails(named: object) -> torch.optim.Optimizer:
        raise KeyError("betas")

    with pytest.raises(ConfigurationError, match=r"^optimizer fails on the model's parameters: KeyError: 'betas' \("):
        check_update(nn.Linear(2, 1), fails)


def test_a_new_folder_is_named_by_time_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_folder("sync", NOW) == Path("runs/20260102-030405-sync")
    assert new_folder("async", NOW) == Path("runs/20260102-030405-async")
    for name in ("20260102-030405-sync", "20260102-030405-sync-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert new_folder("sync", NOW) == Path("runs/20260102-030405-sync-3")


def test_a_folder_takes_one_run(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(ConfigurationError, match=f"^out must be without a run, got {tmp_path}: run.jsonl is there"):
        check_folder(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ConfigurationError, match=f"^out must be a folder, got {out}: {tmp_path / 'file'} is a file$"
        ):
            check_folder(out)


def test_a_folder_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)  # root may write everywhere
    with pytest.raises(ConfigurationError, match=f"^out must be writable, got {tmp_path / 'run'}: "):
        check_folder(tmp_path / "run")


def fails(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError("no loss today")


def pairs() -> TensorDataset:
    return TensorDataset(torch.ones(4, 3), torch.ones(4, 1))


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (lambda: nn.Linear(2, 1), nn.functional.mse_loss, "model and loss fail on a batch of train_data: RuntimeError"),
        (lambda: nn.Linear(3, 1), fails, r"ZeroDivisionError: no loss today \(test_planning.py:\d+\)"),
        (lambda: nn.Linear(3, 1), lambda o, t: (o - t) ** 2, r"got shape \(2, 1\); try .mean\(\)"),
        (lambda: nn.Linear(3, 1), lambda o, t: 1.0, "loss must return one number, .* got float"),
        (lambda: nn.Linear(3, 1), lambda o, t: torch.tensor(1.0), "got a tensor that needs no gradient"),
    ],
)
def test_what_does_not_go_together_is_refused_by_a_rehearsal(
    model: Callable[[], nn.Module], loss: Callable[[Any, Any], Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rehearse(model, Training(loss, batch_size=2), pairs)


def test_a_rehearsal_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    training = Training(nn.functional.mse_loss, batch_size=2)
    rehearse(lambda: nn.Sequential(nn.Linear(3, 1), nn.Dropout()), training, pairs)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_that_leaves_parameters_out_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="it left out bias; to freeze one"):
        check_update(nn.Linear(2, 1), lambda params: torch.optim.SGD(list(params)[:1], lr=0.1))


def test_more_shards_than_blocks_are_refused() -> None:
    layout = layout_of(tensors_of(nn.Linear(64, 2)))
    check_shards(3, layout)
    with pytest.raises(ConfigurationError, match="shards must be <= 3, the model's blocks of 256 bytes, got 4"):
        check_shards(4, layout)


# ------------------------------------------------------------------ what a correction takes


@pytest.mark.parametrize(
    ("correction", "copies", "megabytes"),
    [
        (DelayCompensation(), 4, "0.2"),
        (DelayCompensation(adaptive=True), 5, "0.2"),
        (GapAware(), 6, "0.2"),
    ],
)
def test_what_a_correction_takes_of_the_shards_memory_is_told(
    correction: Correction, copies: int, megabytes: str
) -> None:
    job = make_job(mode=Async(), correction=correction)
    assert job.layout.floating_bytes == 38656
    assert explain_copies(job) == (
        f"correction {correction}: shards keep up to {copies} copies of their weights, {megabytes} MB in all, "
        "as slots may be computing at them"
    )


@pytest.mark.parametrize("correction", [None, LagRate(), DelayCompensation(0.0)])
def test_what_takes_nothing_is_not_told(correction: Correction | None) -> None:
    assert explain_copies(make_job(mode=Async(), correction=correction)) is None


# ------------------------------------------------------------------ what the header says


def test_a_run_without_gradients_names_what_every_run_does_in_the_same_words() -> None:
    stragglers = (Straggler(1, parse_duration("exp:50ms"), 2.0),)
    job = make_job(mode=Sync(1), slots=4, workers=2, stragglers=stragglers)
    timing = TimingJob(job.rules, workers=2, batch_size=job.training.batch_size, stragglers=stragglers)
    optimizer = job.optimizer([("weight", nn.Parameter(torch.zeros(2)))])
    said = describe_timing(timing, World())
    names = ("mode", "backups", "correction", "local_steps", "slots", "workers", "batch_size", "stragglers")
    assert {name: said[name] for name in names} == {
        name: describe(job, Placement(), optimizer, World())[name] for name in names
    }
    assert said["stragglers"] == [{"slot": 1, "delay": "exp:50ms", "factor": 2.0}]
