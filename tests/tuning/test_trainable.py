from dataclasses import replace
from typing import Any

import pytest

import psgd
from psgd.config import Placement
from psgd.core.modes import Async
from psgd.errors import ConfigurationError
from psgd.trainer import Trainer
from psgd.training.optimizers import resolve_optimizer
from psgd.tuning.trainable import Reporting, as_trainable, attended, fits, reservation, reserved_by
from tests.jobs import MLP, images
from tests.records import EVALUATION


def make_trainer(**options: Any) -> Trainer:
    return Trainer(
        **{
            "model": MLP,
            "optimizer": resolve_optimizer("sgd", 0.1, {}),
            "train_data": images,
            "val_data": images,
            "batch_size": 5,
            "epochs": 2,
            "plane": "memory",
            **options,
        }
    )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the cluster has in all."""
    total = {"CPU": 4.0, "GPU": 1.0}
    monkeypatch.setattr("ray.cluster_resources", lambda: total)
    return total


def test_every_evaluation_is_reported_and_the_end() -> None:
    reports: list[dict[str, Any]] = []
    result = attended(make_trainer(), reports.append).fit()
    told = [(report["step"], report["evaluation"], report["final"]) for report in reports]
    assert told == [(20, 1, False), (40, 2, False), (40, 2, True)]
    for report, loss in zip(reports, result.evaluations["test_loss"], strict=False):
        assert report["test_loss"] == loss
    assert reports[2].items() >= result.metrics.items()
    assert "train_loss" in reports[2]
    assert 0 < reports[0]["seconds"] < reports[1]["seconds"] <= reports[2]["seconds"] == result.figures["seconds"]


def test_a_report_that_raises_ends_the_run() -> None:
    def stop(_: dict[str, Any]) -> None:
        raise SystemExit(0)  # as Ray Tune does in the trial that it stops

    with pytest.raises(SystemExit):
        attended(make_trainer(), stop).fit()


def test_a_trial_is_silent_and_writes_only_where_the_user_says() -> None:
    assert attended(make_trainer(), print).progress is False
    assert attended(make_trainer(), print).out is None
    assert attended(make_trainer(out="run"), print).out == "run"


def test_the_users_callbacks_come_first() -> None:
    callback = psgd.Callback()
    first, second = attended(make_trainer(callbacks=[callback]), print).callbacks
    assert first is callback
    assert isinstance(second, Reporting)


def test_metrics_are_told_flat_beside_where_they_were_measured() -> None:
    reports: list[dict[str, Any]] = []
    Reporting(reports.append).on_evaluation(EVALUATION)
    where = {"step": 3, "evaluation": 1, "seconds": 2.0, "final": False}
    assert reports == [{"test_loss": 0.25, "test_accuracy": 0.75, **where}]


# ------------------------------------------------------------------ what is reserved


def test_a_trial_reserves_a_bundle_for_each_shard_and_each_worker() -> None:
    trainer = make_trainer(plane="auto", workers=3, shards=2, placement=Placement(cpus_per_worker=0.5))
    assert reserved_by(trainer) == ({}, [{"CPU": 1.0}, {"CPU": 1.0}, *([{"CPU": 0.5}] * 3)], "PACK")


def test_a_trial_on_the_memory_plane_reserves_what_it_computes_on() -> None:
    assert reserved_by(make_trainer(threads=2, workers=3)) == ({"CPU": 2.0}, [], "PACK")
    on_gpu = make_trainer(placement=Placement(gpus_per_worker=0.5))
    assert reserved_by(on_gpu) == ({"CPU": 1.0, "GPU": 1.0}, [], "PACK")


def test_bundles_fit_as_often_as_the_scarcest_resource_says(cluster: dict[str, float]) -> None:
    assert fits([{}, {"CPU": 1.0}, {"CPU": 0.5}]) == 2
    assert fits([{"CPU": 0.1}] * 3) == 13
    assert fits([{"CPU": 1.0, "GPU": 0.5}]) == 2
    assert fits([{"CPU": 5.0}]) == 0
    assert fits([{"TPU": 1.0}]) == 0
    cluster["CPU"] = 0.3
    assert fits([{"CPU": 0.1}]) == 3  # though 0.3 / 0.1 is less than 3


@pytest.mark.usefixtures("cluster")
def test_what_is_reserved_follows_the_config() -> None:
    reserved = reservation(lambda config: make_trainer(plane="auto", **config), {"workers": 2})
    assert (reserved.head_bundle_is_empty, reserved.bundles) == (True, [{"CPU": 1.0}] * 3)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("config", [{"workers": 0}, {"workers": 4}, {"wrokers": 1}])
def test_a_trial_that_can_not_be_run_or_never_fits_holds_little_until_it_says_so(config: dict[str, Any]) -> None:
    reserved = reservation(lambda config: make_trainer(plane="auto", **config), config)
    assert (reserved.head_bundle_is_empty, reserved.bundles) == (False, [{"CPU": 1.0}])


@pytest.mark.usefixtures("cluster")
def test_a_trainer_is_asked_what_it_reserves_without_its_data() -> None:
    trainer = make_trainer(plane="auto", workers=1, mode=Async(), train_data=images())
    resources: Any = as_trainable(trainer)._resources  # type: ignore[attr-defined]
    assert resources({"shards": 2, "batch_size": 7}).bundles == [{"CPU": 1.0}] * 3
    [scale] = resources.args
    [without] = scale.args
    assert isinstance(without, Trainer)
    assert without.train_data is not trainer.train_data
    assert without.model is not trainer.model


def test_an_unknown_field_names_the_near_one() -> None:
    trainable = as_trainable(replace(make_trainer(), epochs=1))
    with pytest.raises(ConfigurationError, match="a trial's config") as refusal:
        trainable({"wrokers": 2})
    assert "'wrokers'" in str(refusal.value)
    assert "did you mean workers?" in str(refusal.value)


def test_a_config_replaces_fields_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", reports.append)
    as_trainable(make_trainer())({"epochs": 1})
    as_trainable(lambda config: make_trainer(epochs=config["passes"]))({"passes": 1})
    assert [report["step"] for report in reports] == [20, 20, 20, 20]
