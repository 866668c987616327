import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from psgd.experiments.measuring import is_measured, measure_training_set
from psgd.result import WEIGHTS_NAME
from tests.experiments.small import trainer_of, two_arms

JOB = replace(trainer_of(next(two_arms(Path("out")).runs())), out=None).plan().job


def test_the_saved_weights_are_measured_on_the_training_set(tmp_path: Path) -> None:
    save_file({"weight": torch.eye(2), "bias": torch.zeros(2)}, tmp_path / WEIGHTS_NAME)
    assert not is_measured(tmp_path)
    measure_training_set(JOB, tmp_path)
    assert is_measured(tmp_path)
    metrics = json.loads((tmp_path / "train_metrics.json").read_text())
    assert metrics["accuracy"] == 1.0
    assert metrics["loss"] == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_what_is_no_number_is_written_as_null(tmp_path: Path) -> None:
    save_file({"weight": torch.full((2, 2), math.nan), "bias": torch.zeros(2)}, tmp_path / WEIGHTS_NAME)
    measure_training_set(JOB, tmp_path)
    assert json.loads((tmp_path / "train_metrics.json").read_text())["loss"] is None


def test_without_weights_nothing_is_measured(tmp_path: Path) -> None:
    measure_training_set(JOB, tmp_path)
    assert not is_measured(tmp_path)


def test_the_random_state_is_left_alone(tmp_path: Path) -> None:
    save_file({"weight": torch.eye(2), "bias": torch.zeros(2)}, tmp_path / WEIGHTS_NAME)
    before = torch.random.get_rng_state()
    measure_training_set(JOB, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
