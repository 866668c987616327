import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from psgd.bench.case import StepCase
from psgd.bench.training import TrainingCase
from psgd.cli import main
from psgd.cli.bench_config import StepConfig, steps_for
from tests.cluster.test_end import RUN_VARIABLE, processes_of, wait_for_end

FIGURES = {"psgd_ms": 90.5, "raw_ms": None, "medians_ms": {"psgd": [90.5, 91.0]}, "machine": {"cpu": "AMD", "cores": 2}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was to be measured, without the one who is told how far it is; nothing really is."""
    calls: list[tuple[Any, ...]] = []

    def measure(*arguments: Any) -> dict[str, Any]:
        *what, tell = arguments
        calls.append(tuple(what))
        tell("round 1 of 1")
        return FIGURES

    for name in ("compare", "compare_throughput", "measure_plane", "grow"):
        monkeypatch.setattr(f"psgd.cli.bench.{name}", measure)
    return calls


def bench(*options: str, **environment: str) -> int:
    return main(["bench", *options], environment)


def test_json_is_the_last_line_and_progress_goes_to_stderr(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("step", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1]) == FIGURES
    assert captured.err == "psgd bench: round 1 of 1\n"
    assert len(asked) == 1


def test_devices_reach_the_measurement(asked: list[tuple[Any, ...]]) -> None:
    assert bench("step", "--use-gpu", "--shard-device", "cuda", "--peers", "none") == 0
    ((case, peers, _),) = asked
    assert (case.use_gpu, case.shard_device, peers) == (True, "cuda", ())


@pytest.mark.usefixtures("asked")
def test_without_json_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("step") == 0
    assert capsys.readouterr().out.splitlines() == [
        "psgd_ms     90.5000",
        "medians_ms  psgd 90.5000, 91.0000",
        "machine     cpu AMD; cores 2",
    ]


def test_options_of_a_step_reach_the_measurement(asked: list[tuple[Any, ...]]) -> None:
    options = "--params 250 --tensors 5 --workers 3 --shards 2 --mode async --plane rpc --peers ray,ddp --rounds 2"
    assert bench("step", *options.split(), "--warmup", "1", PSGD_STEPS="7") == 0
    case = StepCase(250, 5, 3, 2, warmup=1, steps=7, mode="async", trainer_options={"plane": "rpc", "wire": "float32"})
    assert asked == [(case, ("ray", "ddp"), 2)]


def test_by_default_all_peers_are_measured_and_none_if_one_says_so(asked: list[tuple[Any, ...]]) -> None:
    assert bench("step") == bench("step", "--peers", "none") == 0
    assert [peers for _, peers, _ in asked] == [("ddp", "rpc", "ray"), ()]


def test_fewer_steps_are_measured_the_longer_each_takes() -> None:
    assert [steps_for(None, params) for params in (1000, 2_500_000, 25_000_000, 10**8)] == [300, 200, 20, 10]
    assert steps_for(7, 1000) == 7


def test_options_of_a_training_reach_the_measurement(asked: list[tuple[Any, ...]]) -> None:
    options = "--data digits --model linear --workers 3 --shards 2 --batch-size 16 --steps 9 --warmup 4 --rounds 2"
    assert bench("train", *options.split()) == 0
    ((case, rounds),) = asked
    assert isinstance(case, TrainingCase)
    assert (case.data, case.workers, case.shards, case.batch_size) == ("digits", 3, 2, 16)
    assert (case.warmup, case.steps, rounds, case.trainer_options) == (4, 9, 2, {"plane": "auto", "wire": "float32"})
    assert case.model()(case.load_samples()[0][0].unsqueeze(0)).shape == (1, 10)


def test_options_of_a_plane_reach_the_measurement(asked: list[tuple[Any, ...]]) -> None:
    assert bench("plane", "--mbytes", "5", "--rounds", "4", "--warmup", "1") == 0
    assert asked == [("rpc", 5, 4, 1)]


def test_each_series_grows_one_number(asked: list[tuple[Any, ...]]) -> None:
    options = "--workers 1,2 --shards 3 --params 1e4,2000 --base-params 500 --steps 6"
    assert bench("scale", *options.split()) == 0
    ((series,),) = asked
    sizes = {name: [(case.workers, case.shards, case.params) for case in cases] for name, cases in series.items()}
    assert sizes == {
        "workers": [(1, 1, 500), (2, 1, 500)],
        "shards": [(2, 3, 500)],
        "params": [(2, 1, 10_000), (2, 1, 2000)],
    }


def test_the_series_are_drawn_where_that_is_wanted(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr("psgd.cli.bench.draw", lambda figures, target: drawn.append(target))
    assert bench("scale") == 0
    assert drawn == []
    assert bench("scale", "--draw", str(tmp_path / "scale.png")) == 0
    assert drawn == [tmp_path / "scale.png"]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("step --peers ddp,horovod", "peers must be of ddp, rpc, ray, or none, got 'horovod'"),
        ("step --use-gpu --peers ddp", "peers compute on the CPU: they must be none with use_gpu, got ddp"),
        ("step --params 9", "params must be >= tensors (10), got 9"),
        ("step --tensors 0", "tensors must be >= 1, got 0"),
        ("step --workers 0", "workers must be >= 1, got 0"),
        ("step --shards 0", "shards must be >= 1, got 0"),
        ("step --rounds 0", "rounds must be >= 1, got 0"),
        ("step --steps 0", "steps must be >= 1, got 0"),
        ("step --warmup -1", "warmup must be >= 0, got -1"),
        ("step --mode bsp", "--mode must be sync or async, got 'bsp'"),
        ("step --plane pigeon", "--plane must be auto, shm or rpc, got 'pigeon'"),
        ("train --batch-size 0", "batch_size must be >= 1, got 0"),
        ("train --data mnist", "data mnist needs the folder of its IDX files"),
        ("train --model resnet", "model must be one of cnn, linear, mlp, my.pkg:factory, got 'resnet'"),
        ("plane --mbytes 0", "mbytes must be >= 1, got 0"),
        ("plane --plane memory", "--plane must be rpc or shm, got 'memory'"),
        ("scale --workers 1,two", "workers must be whole numbers, got 1, two"),
        ("scale --shards 1.5", "shards must be whole numbers, got 1.5"),
        ("scale --params 1e2,9", "params must all be >= 10, got 1e2, 9"),
        ("scale --base-params 9", "base_params must be >= 10, got 9"),
        ("scale --draw scale.xyz", "the picture's name must end in one of"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], options: str, line: str) -> None:
    assert bench(*options.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"psgd: error: {line}")
    assert captured.err.count("\n") == 1


def test_what_the_trainer_refuses_in_its_process_is_one_line_here(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("step", "--params", "1000", "--shards", "999", "--peers", "none") == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("psgd: error: shards must be ")
    assert captured.err.count("\n") == 1


def test_only_psgd_is_told_how_its_tensors_travel() -> None:
    assert StepConfig(plane="rpc", wire="int8").trainer_options == {"plane": "rpc", "wire": "int8"}


@pytest.mark.ray
def test_a_measurement_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    run = str(uuid.uuid4())
    program = "import sys; from psgd.cli import main; sys.exit(main())"
    options = ["bench", "step", "--params", "1000", "--steps", "1000000", "--peers", "none"]
    with (tmp_path / "stderr").open("wb") as stderr:
        measuring = subprocess.Popen(
            [sys.executable, "-c", program, *options],
            env={**os.environ, RUN_VARIABLE: run},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    while not processes_of(run, ("ray::WorkerHost.run",)):
        assert measuring.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.05)
    measuring.send_signal(signal.SIGINT)
    assert measuring.wait(timeout=30) == 130
    assert wait_for_end(run, names=()) == []
    assert b"Traceback" not in (tmp_path / "stderr").read_bytes()
