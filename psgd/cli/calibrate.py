"""``psgd calibrate``: a run in, the world that it was made in out, as options for ``psgd simulate``."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import yaml

from psgd.analysis.tables import Row, as_text
from psgd.cli.calibrate_config import CalibrateConfig
from psgd.cli.calibrate_hint import hint, run_options
from psgd.cli.options import plain
from psgd.cli.simulate_config import SimulateConfig
from psgd.errors import ConfigurationError
from psgd.experiments.calibration import Calibration, Quantity, calibrate
from psgd.experiments.calibration_doubts import doubts
from psgd.experiments.calibration_picture import draw_calibration
from psgd.experiments.timings import Course, read_timings
from psgd.runlog import finite
from psgd.simulation.world import World

WORLD_NAME, PICTURE_NAME = "world.yaml", "calibration.png"
FIGURES = {
    "pushes_per_s": "pushes/s",
    "samples_per_s": "samples/s",
    "idle_share": "idle share",
    "wait_share": "wait share",
    "lag": "mean lag",
    "seconds": "seconds",
}

log = logging.getLogger("psgd")


def run(config: CalibrateConfig) -> None:
    """Calibrate as the options say.

    Raises:
        ConfigurationError: if the run is none that a world can be fitted to, or the file can not be written; there is
            none then.
    """
    path = Path(config.run[0])
    timings = read_timings(path)
    target = (path if path.is_dir() else path.parent) / WORLD_NAME if config.out is None else Path(config.out)
    _check_target(target)
    calibration = calibrate(timings, path)
    options = {} if config.world_only else run_options(timings)
    try:
        target.write_text(as_options(calibration, options), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"out can not be written, {target}: {error.strerror}; name another with --out"
        ) from None
    picture = _draw(calibration, target.with_name(PICTURE_NAME))
    if config.json:
        print(json.dumps(finite(as_json(calibration, target, picture)), allow_nan=False), flush=True)
    else:
        print(in_text(calibration), flush=True)
    if not options and not config.world_only:
        tell("the log has no options of a training (its run was not made by a command): the file has the world alone")
    trusted = not _doubts(calibration)
    command = hint(target, calibration.world, timings.job.rules.slots, options, config.world_only, trusted)
    tell(f"the world is in {target}: {command}")


def _check_target(target: Path) -> None:
    """Refuse before anything is done what could not be written after it."""
    if target.is_dir():
        raise ConfigurationError(f"out must be a file, got the folder {target}: try {target / WORLD_NAME}")
    if not target.parent.is_dir():
        raise ConfigurationError(f"out must be in a folder that is there, got {target}: make {target.parent}")


def as_options(calibration: Calibration, options: dict[str, Any]) -> str:
    """The file for ``--config``: options that are as nobody would have to say them are left out.

    Args:
        options: of the run.
    """
    usual = plain(SimulateConfig())
    told = {
        name: value
        for name, value in {**options, **world_options_of(calibration.world)}.items()
        if name == "compute" or value != usual[name]
    }
    beware = _beware(calibration)
    return ("" if beware is None else f"# {beware}\n") + yaml.safe_dump(told, sort_keys=False)


def world_options_of(world: World) -> dict[str, Any]:
    """The fitted part of a world as options."""
    return {
        "compute": str(world.compute),
        "compute_of": {str(slot): str(duration) for slot, duration in world.slots},
        "service": str(world.service),
        "evaluation": str(world.evaluation),
    }


def _draw(calibration: Calibration, target: Path) -> Path | None:
    try:
        draw_calibration(calibration, target)
    except ConfigurationError as error:
        log.warning("there is no picture: %s, and run the same again", error)
        return None
    except OSError as error:
        log.warning("there is no picture, %s can not be written: %s", target, error.strerror)
        return None
    return target


# ------------------------------------------------------------------ in words


def in_text(calibration: Calibration) -> str:
    """What was fitted, and the check of it, for the terminal."""
    notes = [
        f"{calibration.left_out} iterations were left out, the first of each slot: the warm-up.",
        *(note for each in calibration.quantities if (note := _about_trace(each))),
    ]
    mini_batches = calibration.run.job.rules.mini_batches
    if mini_batches > 1:
        notes.append(
            f"Of compute times only means of {mini_batches} mini-batches were measured; single ones are taken to be "
            "independent, and their family is a guess: small idle shares, above all, may be off."
        )
    if len(calibration.run.evaluation_s) > 1:
        notes.append("What slots waited for evaluations is in what was measured, and is not simulated.")
    beware = _beware(calibration)
    if beware is not None:
        notes.insert(0, beware)
    tables = [
        as_text(_quantity_rows(calibration), words={0, 1}),
        as_text(_check_rows(calibration), words={0}),
    ]
    return "\n\n".join([*tables, "\n".join(notes)])


def _beware(calibration: Calibration) -> str | None:
    """What the world is not to be trusted for, on one line."""
    found = _doubts(calibration)
    if not found:
        return None
    return f"Beware: simulated, the same run has {', '.join(found)}: the world is not to be trusted for that."


def _doubts(calibration: Calibration) -> list[str]:
    return doubts(calibration.measured, calibration.simulated)


def _quantity_rows(calibration: Calibration) -> list[Row]:
    return [
        ("quantity", "model", "distance", "measured"),
        *(
            (_name(each), str(each.fit.duration), _distance(each), str(each.fit.measured))
            for each in calibration.quantities
        ),
    ]


def _name(quantity: Quantity) -> str:
    return quantity.name if quantity.slot is None else f"{quantity.name} {quantity.slot}"


def _distance(quantity: Quantity) -> str:
    return "" if math.isnan(quantity.fit.distance) else f"{quantity.fit.distance:.3f}"


def _about_trace(quantity: Quantity) -> str | None:
    if not quantity.traced:
        return None
    return (
        f"{_name(quantity)}: no family comes close, the best is {quantity.families[0]}: the times of the run are drawn "
        "themselves."
    )


def _check_rows(calibration: Calibration) -> list[Row]:
    return [
        ("the same run", "measured", "simulated", "simulated / measured"),
        *(
            (words, f"{measured:.4g}", f"{simulated:.4g}", "" if ratio is None else f"{ratio:.3f}")
            for words, (measured, simulated, ratio) in zip(FIGURES.values(), _check(calibration).values(), strict=True)
        ),
    ]


def _check(calibration: Calibration) -> dict[str, tuple[float, float, float | None]]:
    """Measured, simulated and their ratio by figure."""
    pairs = {name: _pair(name, calibration.measured, calibration.simulated) for name in FIGURES}
    return {name: (*pair, pair[1] / pair[0] if pair[0] else None) for name, pair in pairs.items()}


def _pair(name: str, measured: Course, simulated: Course) -> tuple[float, float]:
    return getattr(measured, name), getattr(simulated, name)


def as_json(calibration: Calibration, target: Path, picture: Path | None) -> dict[str, Any]:
    """The same for machines."""
    return {
        "quantities": [
            {
                "name": each.name,
                "slot": each.slot,
                "model": str(each.fit.duration),
                "distance": each.fit.distance,
                "measured": each.fit.measured,
                "families": [{"model": str(f.duration), "distance": f.distance} for f in each.families],
            }
            for each in calibration.quantities
        ],
        "left_out": calibration.left_out,
        "check": {
            name: {"measured": measured, "simulated": simulated, "ratio": ratio}
            for name, (measured, simulated, ratio) in _check(calibration).items()
        },
        "beware": _doubts(calibration),
        "world": calibration.world.describe(),
        "config": str(target),
        "picture": None if picture is None else str(picture),
    }


def tell(line: str) -> None:
    """Say what the figures are not."""
    print("psgd calibrate:", line, file=sys.stderr, flush=True)
