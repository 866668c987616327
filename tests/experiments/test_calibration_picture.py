from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Rules
from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError
from psgd.experiments.calibration import Calibration, calibrate
from psgd.experiments.calibration_picture import draw_calibration
from psgd.experiments.timings import read_timings
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World


def calibration(folder: Path) -> Calibration:
    world = World(compute=parse_duration("0.1+exp:0.1"), slots=((1, constant(0.5)),), service=constant(0.01))
    run_without_gradients(TimingJob(Rules(Async(), 3, 1, 60), 3), world, folder, progress=False)
    return calibrate(read_timings(folder), folder)


def test_slots_that_differ_have_a_panel_each_and_figures_stand_in_pairs(tmp_path: Path, drawn: list[Figure]) -> None:
    found = calibration(tmp_path)
    draw_calibration(found, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    axes, panels = drawn[0].axes, ("the other slots", "slot 1")
    assert [each.get_title() for each in axes] == [
        *(f"{who}: {each.fit.measured} mini-batches" for who, each in zip(panels, found.quantities, strict=False)),
        "samples/s",
        "idle share",
        "wait share",
        "mean lag",
        "seconds",
    ]
    heights = [[bar.get_height() for bar in each.patches] for each in axes[2:]]  # type: ignore[attr-defined]
    assert heights[0] == [found.measured.samples_per_s, found.simulated.samples_per_s]
    assert heights[-1] == [found.measured.seconds, found.simulated.seconds]


def test_the_histograms_areas_are_shares_of_all_that_was_measured(tmp_path: Path, drawn: list[Figure]) -> None:
    found = calibration(tmp_path)
    draw_calibration(found, tmp_path / "calibration.png")
    bars = drawn[0].axes[0].patches[:40]
    area = sum(bar.get_height() * bar.get_width() for bar in bars)  # type: ignore[attr-defined]
    seconds = np.asarray(found.quantities[0].seconds)
    assert area == pytest.approx(np.mean(seconds <= np.percentile(seconds, 99)))


def test_a_constant_can_be_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    run_without_gradients(TimingJob(Rules(Async(), 2, 1, 5), 2), World(), tmp_path, progress=False)
    draw_calibration(calibrate(read_timings(tmp_path), tmp_path), tmp_path / "calibration.svg")
    assert drawn[0].axes[0].get_title() == "all slots: 8 mini-batches"


def test_what_means_were_spread_to_is_told(tmp_path: Path, drawn: list[Figure]) -> None:
    rules = Rules(Async(), 2, 1, 5, local_steps=LocalSteps(4))
    run_without_gradients(TimingJob(rules, 2), World(), tmp_path, progress=False)
    draw_calibration(calibrate(read_timings(tmp_path), tmp_path), tmp_path / "calibration.svg")
    assert drawn[0].axes[0].get_title() == "all slots: 8 means of 4 mini-batches, spread"


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the picture's name must end in one of"):
        draw_calibration(calibration(tmp_path), tmp_path / "calibration.txt")
