import dataclasses
import json
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from psgd.cli import main
from psgd.cli.building import parse_straggler
from psgd.cli.calibrate_hint import hint
from psgd.cli.options import parse
from psgd.cli.simulate_config import SimulateConfig
from psgd.cli.world import build_world, read_trace
from psgd.config import Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Rules
from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError
from psgd.runlog import FILE_NAME, Header, encode
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from tests.records import iteration


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a simulated run with a straggler, and one slot that is slow."""
    world = World(compute=constant(0.1), slots=((1, constant(0.3)),), service=constant(0.01))
    stragglers = (Straggler(0, parse_duration("exp:50ms")),)
    job = TimingJob(Rules(Async(2), 3, 2, 40), 3, batch_size=4, stragglers=stragglers)
    run_without_gradients(job, world, tmp_path / "run", progress=False)
    return tmp_path / "run"


def calibrated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What is printed as JSON."""
    assert main(["calibrate", *words, "--json"], {}) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def test_the_world_and_its_picture_are_written_beside_the_log(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = calibrated(capsys, str(run))
    assert yaml.safe_load((run / "world.yaml").read_text()) == {
        "gradients": "none",
        "mode": "async",
        "staleness": 2,
        "workers": 3,
        "batch_size": 4,
        "steps": 40,
        "straggler": ["0:exp:50ms"],
        "compute": "0.1",
        "compute_of": {"1": "0.3"},
        "service": report["world"]["service"],
    }
    assert float(report["world"]["service"]) == pytest.approx(0.01, rel=0.05)
    assert (report["config"], report["picture"]) == (str(run / "world.yaml"), str(run / "calibration.png"))
    assert (run / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert report["left_out"] == 3
    assert [(each["name"], each["slot"], each["model"]) for each in report["quantities"][:2]] == [
        ("compute", None, "0.1"),
        ("compute_of", 1, "0.3"),
    ]
    assert report["check"]["samples_per_s"]["ratio"] == pytest.approx(1.0, rel=0.02)
    assert report["check"]["seconds"]["ratio"] == pytest.approx(1.0, rel=0.02)


def test_the_file_is_what_simulate_reads(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    calibrated(capsys, str(run / FILE_NAME), "--out", str(file))
    assert not (run / "world.yaml").exists()
    config = parse(SimulateConfig, "psgd simulate", ["--config", str(file), "--workers", "64"], {})
    world = build_world(config)
    assert (str(world.compute), [(slot, str(each)) for slot, each in world.slots]) == ("0.1", [(1, "0.3")])
    assert config.workers == 64


def test_tables_are_printed_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run)], {}) == 0
    captured = capsys.readouterr()
    assert [line.split() for line in captured.out.splitlines()[:4:2]] == [
        ["quantity", "model", "distance", "measured"],
        ["compute", "0.1", "0.000", captured.out.splitlines()[2].split()[-1]],
    ]
    assert "the same run  measured  simulated  simulated / measured" in captured.out
    assert "3 iterations were left out, the first of each slot: the warm-up." in captured.out
    assert "Of compute times" not in captured.out
    assert captured.err.splitlines()[-1] == (
        f"psgd calibrate: the world is in {run}/world.yaml: psgd simulate --config {run}/world.yaml --workers 64 "
        "says what 64 nodes would do"
    )
    assert "no options" not in captured.err


def test_a_training_keeps_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--mode", "async", "--staleness", "2", "--steps", "8", "--workers", "2", "--shards", "1", "--lr", "0.5"]
    asked = [*words, "--straggler", "1:200ms,*:exp:1ms", "--plane", "memory", "--out", str(tmp_path / "run"), "--json"]
    assert main(["train", *asked], {}) == 0
    report = calibrated(capsys, str(tmp_path / "run"))
    told = yaml.safe_load((tmp_path / "run" / "world.yaml").read_text())
    # On cores that others use, too, the two slots may differ by enough to be fitted apart.
    world = {name: told.pop(name) for name in ("compute", "compute_of", "service", "evaluation") if name in told}
    assert told == {
        "mode": "async",
        "staleness": 2,
        "shards": 1,
        "lr": 0.5,
        "steps": 8,
        "straggler": ["1:200ms", "*:exp:1ms"],
    }
    assert parse_duration(world["compute"]).mean < 0.1  # what was injected is no part of it
    assert world["evaluation"] == report["world"]["evaluation"]
    calibrated(capsys, str(tmp_path / "run"), "--world-only")
    assert set(yaml.safe_load((tmp_path / "run" / "world.yaml").read_text())) == set(world)


def test_without_matplotlib_there_is_a_world_and_no_picture(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert calibrated(capsys, str(run))["picture"] is None
    assert (run / "world.yaml").exists()
    assert not (run / "calibration.png").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "RUN must be one folder with a run.jsonl, or that file, got none"),
        (["a", "b"], "RUN must be one folder with a run.jsonl, or that file, got a, b"),
        (["nowhere"], "no run log at nowhere: expected a run.jsonl that psgd train --out wrote"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    assert main(["calibrate", *words], {}) == 2
    assert capsys.readouterr().err == f"psgd: error: {line}\n"


def test_a_folder_that_is_not_there_is_refused_before_anything_is_done(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), "--out", str(run / "no" / "world.yaml")], {}) == 2
    assert "out must be in a folder that is there" in capsys.readouterr().err


def test_a_folder_is_no_file_to_write_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run), "--out", str(run)], {}) == 2
    assert capsys.readouterr().err == (
        f"psgd: error: out must be a file, got the folder {run}: try {run / 'world.yaml'}\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_is_told_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run), "--out", "/dev/full"], {}) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "psgd: error: out can not be written, /dev/full: No space left on device; name another with --out\n"
    )


def test_a_picture_that_can_not_be_written_is_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "calibration.png").mkdir()
    assert calibrated(capsys, str(run))["picture"] is None
    assert (run / "world.yaml").exists()


@pytest.mark.parametrize(
    ("slots", "options", "words"),
    [
        (4, {"gradients": "none"}, "--workers 64"),
        (100, {"gradients": "none"}, "--workers 200"),
        (4, {"batch_size": 8, "slots": None}, "--workers 64"),
        (4, {"batch_size": 8, "slots": 4}, "--workers 64 --slots 64"),
        (4, {"batch_size": 32}, "--workers 44"),  # of the 1437 digits
        (4, {"batch_size": 32, "limit": 200}, "--workers 6"),
        (2, {"data": "mnist", "data_dir": "/nowhere"}, "--workers 64"),
        (100, {}, "--workers 44"),  # a program's, whose data are not the command's
    ],
)
def test_the_hint_has_a_slot_for_each_node_and_as_many_as_the_data_allow(
    slots: int, options: dict[str, Any], words: str
) -> None:
    command, _, rest = hint(Path("my runs/world.yaml"), World(), slots, options, False, True).partition(" says")
    assert command == f"psgd simulate --config 'my runs/world.yaml' {words}"
    assert rest == f" what {words.split()[1]} nodes would do"


def test_the_hint_has_a_slot_for_each_that_the_world_names() -> None:
    world = World(slots=((50, constant(0.1)),))
    assert " --workers 51 --batch-size 28 says" in hint(Path("f"), world, 60, {}, False, True)
    words = " --modes sync,async:4,async --workers 51 --batch-size 28 compares"
    assert words in hint(Path("f"), world, 60, {}, True, True)


def test_a_hint_for_a_world_that_is_off_says_so() -> None:
    assert hint(Path("f"), World(), 4, {}, False, False).endswith(
        "simulates 44 nodes in it, which is not to be trusted"
    )
    assert hint(Path("f"), World(), 4, {}, True, False).endswith("compares modes in it, which is not to be trusted")


@pytest.mark.parametrize(
    "words",
    [
        "--data digits --workers 2 --slots 4 --batch-size 8 --steps 4 --compute exp:10ms",
        "--data digits --workers 2 --steps 4 --compute exp:10ms",
        "--gradients none --workers 3 --iterations 20 --straggler 1:50ms,*:3x,2:exp:5ms --clip-norm 1 --backups 1",
        "--gradients none --workers 2 --slots 4 --mode async --gather 2 --local-steps 3 --parameters 9 --seed 5",
    ],
)
@pytest.mark.parametrize("world_only", [[], ["--world-only"]])
def test_the_hint_is_a_command_that_is_not_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, world_only: list[str]
) -> None:
    assert main(["simulate", *words.split(), "--out", str(tmp_path), "--json"], {}) == 0
    assert main(["calibrate", str(tmp_path), *world_only], {}) == 0
    said = capsys.readouterr().err
    command = re.search(r"psgd ((simulate|compare) .*) (says|compares|simulates) ", said)
    assert command is not None
    assert command[2] == ("compare" if world_only else "simulate")
    assert main([*shlex.split(command[1]), "--dry-run"], {}) == 0


def test_a_run_without_gradients_keeps_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--mode async --staleness 3 --gather 2 --workers 2 --slots 4 --shards 1 --steps 30 --seed 5 --parameters 9"
    asked = [*words.split(), "--local-steps", "3", "--straggler", "1:50ms,*:3x"]
    assert main(["simulate", "--gradients", "none", *asked, "--out", str(tmp_path), "--json"], {}) == 0
    calibrated(capsys, str(tmp_path))
    read = parse(SimulateConfig, "psgd simulate", ["--config", str(tmp_path / "world.yaml")], {})
    said = parse(SimulateConfig, "psgd simulate", ["--gradients", "none", *asked], {})
    world = {"compute", "compute_of", "service", "straggler", "outer_lr", "outer_momentum"}
    names = {each.name for each in dataclasses.fields(SimulateConfig)} - world
    assert {name: getattr(read, name) for name in names} == {name: getattr(said, name) for name in names}
    assert read.choose_local_steps() == said.choose_local_steps()
    assert [parse_straggler(text) for text in read.straggler] == [parse_straggler(text) for text in said.straggler]


def test_a_programs_run_has_no_options_and_its_hint_is_not_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run / FILE_NAME
    first, rest = log.read_text().split("\n", 1)
    header = json.loads(first)
    del header["settings"]["gradients"]
    log.write_text(json.dumps(header) + "\n" + rest)
    assert main(["calibrate", str(run)], {}) == 0
    assert "the log has no options of a training (its run was not made by a command)" in capsys.readouterr().err
    assert set(yaml.safe_load((run / "world.yaml").read_text())) == {"compute", "compute_of", "service"}


def test_a_world_that_is_not_to_be_trusted_says_so_wherever_it_is_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run / FILE_NAME
    # Nobody took note of what held the run up half way: no iteration is longer for it.
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for record in lines:
        if record.get("time_s", 0) > 2:
            record["time_s"] += 50
    log.write_text("".join(json.dumps(record) + "\n" for record in lines))
    report = calibrated(capsys, str(run))
    assert [words.split()[0] for words in report["beware"]] == ["pushes/s", "seconds"]
    check = report["check"]["seconds"]
    seconds = f"seconds {check['simulated']:.4g} instead of {check['measured']:.4g} ({check['ratio']:.3g} times)"
    assert report["beware"][1] == seconds
    line = (
        f"Beware: simulated, the same run has {', '.join(report['beware'])}: the world is not to be trusted for that."
    )
    file = (run / "world.yaml").read_text()
    assert file.splitlines()[0] == f"# {line}"
    assert yaml.safe_load(file)["compute"] == "0.1"
    assert main(["calibrate", str(run)], {}) == 0
    captured = capsys.readouterr()
    assert line in captured.out.splitlines()
    assert "--workers 64 simulates 64 nodes in it, which is not to be trusted" in captured.err


def test_a_world_that_may_be_trusted_says_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrated(capsys, str(run))["beware"] == []
    assert main(["calibrate", str(run)], {}) == 0
    assert "Beware" not in capsys.readouterr().out + (run / "world.yaml").read_text()


def test_a_loop_of_ones_own_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = Header({"own_loop": True, "slots": 1}, {}, "2026-01-01T00:00:00+00:00")
    (tmp_path / FILE_NAME).write_text(encode(header) + "\n" + encode(iteration()) + "\n")
    assert main(["calibrate", str(tmp_path)], {}) == 2
    assert "RUN must be of the built-in loop" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="built-in loop"):
        read_trace(tmp_path)


@pytest.mark.parametrize("words", ["calibrate {run}", "simulate --gradients none --steps 5 --compute trace:{run}"])
def test_a_damaged_log_is_told_in_one_line(run: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    log = run / FILE_NAME
    log.write_text(log.read_text() + encode(iteration(slot=7)) + "\n")
    assert main(words.format(run=run).split(), {}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"slot must be in 0 … 2, got 7 on line {len(log.read_text().splitlines())} of {run}" in line


def test_a_trace_has_the_times_without_what_was_injected(run: Path) -> None:
    trace = read_trace(run)
    assert trace.mean == pytest.approx((0.1 + 0.1 + 0.3) / 3, rel=0.15)
    assert {round(second, 9) for second in trace.terms[0].distribution.seconds} == {0.1, 0.3}  # type: ignore[attr-defined]


def test_a_trace_of_local_steps_spreads_what_was_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = TimingJob(Rules(Async(), 4, 1, 100, local_steps=LocalSteps(16)), 4)
    run_without_gradients(job, World(compute=parse_duration("exp:10ms")), tmp_path, progress=False)
    seconds = read_trace(tmp_path).terms[0].distribution.seconds  # type: ignore[attr-defined]
    assert statistics.fmean(seconds) == pytest.approx(0.01, rel=0.05)
    assert statistics.pstdev(seconds) == pytest.approx(0.01, rel=0.15)
    assert main(["calibrate", str(tmp_path)], {}) == 0
    assert "Of compute times only means of 16 mini-batches were measured; " in capsys.readouterr().out
