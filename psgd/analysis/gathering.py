"""Runs that were made elsewhere, gathered into a comparison: by their settings into arms, by their seeds into pairs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import ArmRuns, Budget, ComparisonFigures, Rate, Target
from psgd.analysis.conditions import COMPARED, rate_of, setting
from psgd.analysis.curves import samples_per_step
from psgd.analysis.run_figures import RunFigures, read_run
from psgd.core.local_steps import LocalSteps
from psgd.core.mode_name import mode_name
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ConfigurationError
from psgd.runlog import FILE_NAME
from psgd.training.names import with_arguments

ALIKE = ("data", "model", "limit", "bytes", "slots", "batch_size")
"""Settings without which runs can not be compared at all."""

NEARLY = 1.1
"""Runs whose lengths are no more apart than by this factor are as long as each other: local steps round."""

Key = tuple[str, str]
"""The optimizer and the mode of an arm, as they are written."""


def find_runs(places: Sequence[Path]) -> list[Path]:
    """The folders of runs in these places: each is such a folder itself, or holds some, however deep.

    Raises:
        ConfigurationError: if there is none in one of them.
    """
    found: dict[Path, None] = {}
    for place in places:
        logs = [place / FILE_NAME] if (place / FILE_NAME).is_file() else sorted(place.rglob(FILE_NAME))
        if not logs:
            raise ConfigurationError(
                f"RUN must be a folder with a {FILE_NAME}, or one that holds such folders, got {place}: there is none"
            )
        found |= dict.fromkeys(log.parent for log in logs)
    return list(found)


def gather(folders: Iterable[Path]) -> ComparisonFigures:
    """The comparison that runs are when they are put side by side; incomplete ones are left out, and it says so.

    What ended them, be it a target, is known of runs that the command line has made.

    Raises:
        ConfigurationError: if they can not be compared: other data, models or batches, or one run twice.
        DataError: if a log is damaged.
    """
    read = {folder: read_run(folder) for folder in folders}
    runs = [run for run in read.values() if run is not None]
    broken = ", ".join(str(folder) for folder, run in read.items() if run is None)
    if not runs:
        raise ConfigurationError(
            f"RUN must hold runs that have come to their end, got only such as were broken off: {broken}"
        )
    _check_alike(runs)
    budget, target = _budget(runs)
    seeds = tuple(sorted({run.settings["seed"] for run in runs}))
    arms = (_arm(key, rates, seeds) for key, rates in _sort(runs).items())
    return ComparisonFigures(
        seeds,
        tuple(sorted(arms, key=_place)),
        budget,
        target,
        remarks=(f"Left out, as they have not come to their end: {broken}.",) if broken else (),
        gathered=True,
    )


def mode_of(settings: Mapping[str, Any]) -> str:
    """A run's mode as it is written on the command line.

    Example:
        >>> mode_of({"mode": "async", "staleness": 4, "gather": 5, "correction": "lag-lr"})
        'async:4/softsync=5/lag-lr'
        >>> mode_of({"mode": "sync", "backups": 1, "local_steps": {"steps": 8, "lr": 0.7, "momentum": 0.9}})
        'sync+1/local=8'
    """
    mode: Mode = Sync(settings.get("backups") or 0)
    if settings.get("mode") == "async":
        mode = Async(settings.get("staleness"), settings.get("gather", 1))
    local = settings.get("local_steps")
    return mode_name(mode, settings.get("correction"), None if local is None else LocalSteps(**local))


def _check_alike(runs: Sequence[RunFigures]) -> None:
    first, *others = runs
    for run in others:
        if run.simulated != first.simulated:
            virtual, real = (first, run) if first.simulated else (run, first)
            raise ConfigurationError(
                f"RUN must be runs of one world, got virtual seconds in {virtual.folder} and real ones in "
                f"{real.folder}; report them apart, and see psgd calibrate"
            )
        for name in ALIKE:
            here, there = setting(first, name), setting(run, name)
            if here != there:
                raise ConfigurationError(
                    f"RUN must be runs that can be compared, got {_having(name, here)} in {first.folder} and "
                    f"{_having(name, there)} in {run.folder}; report them apart"
                )


def _budget(runs: Sequence[RunFigures]) -> tuple[Budget, Target | None]:
    """What ended the runs, and the target if they were to reach one."""
    (until, *other_ends), (limit, *other_limits) = (
        dict.fromkeys(run.settings.get("options", {}).get(name) for run in runs) for name in ("until", "max_seconds")
    )
    if other_ends or other_limits or (until is not None and limit is not None):
        return Budget("various"), None
    if until is not None:
        metric, _, value = until.partition("=")
        return Budget("target", float(value)), Target(metric, float(value))
    if limit is not None:
        return Budget("seconds", limit), None
    lengths = [run.settings["steps"] * samples_per_step(run.settings) for run in runs if run.settings.get("steps")]
    alike = not lengths or max(lengths) <= NEARLY * min(lengths)
    return Budget("samples" if alike else "various"), None


def _having(name: str, value: Any) -> str:
    return f"no {name}" if value is None else f"{name} {value}"


def _sort(runs: Sequence[RunFigures]) -> dict[Key, dict[float, dict[int, RunFigures]]]:
    """The runs by arm, learning rate and seed."""
    arms: dict[Key, dict[float, dict[int, RunFigures]]] = defaultdict(lambda: defaultdict(dict))
    for run, optimizer in zip(runs, _optimizers(runs), strict=True):
        key, seed = (optimizer, mode_of(run.settings)), run.settings["seed"]
        seeds = arms[key][rate_of(run.settings) or 0.0]
        if seed in seeds:
            raise ConfigurationError(
                f"RUN must be runs that differ in mode, optimizer, learning rate or seed, got two of {key[1]} with "
                f"seed {seed}: {seeds[seed].folder} and {run.folder}"
            )
        seeds[seed] = run
    return arms


def _optimizers(runs: Sequence[RunFigures]) -> list[str]:
    """What each run's optimizer is called: as it was written, else its class, with the arguments that differ."""
    classes = [run.settings.get("optimizer", "none") for run in runs]
    args = [{key: value for key, value in _args(run).items() if key != "lr"} for run in runs]
    names = []
    for run, name, own in zip(runs, classes, args, strict=True):
        if "optimizer" in run.settings.get("options", {}):
            written, given = run.settings["options"]["optimizer"], run.settings["options"].get("optimizer_args") or {}
        else:
            rivals = [other for kind, other in zip(classes, args, strict=True) if kind == name]
            written, given = (
                name,
                {key: value for key, value in own.items() if any(other.get(key) != value for other in rivals)},
            )
        names.append(with_arguments(written, given))
    return names


def _args(run: RunFigures) -> dict[str, Any]:
    args: dict[str, Any] = run.settings.get("optimizer_args", {})
    return args


def _place(arm: ArmRuns) -> tuple[bool, int, bool, int, str]:
    """Sync first, then with more and more backups, then bounded, then without a bound."""
    staleness = arm.about.get("staleness")
    backups = arm.about.get("backups") or 0
    return arm.about.get("mode") != "sync", backups, staleness is None, staleness or 0, arm.mode


def _arm(key: Key, rates: Mapping[float, Mapping[int, RunFigures]], seeds: Sequence[int]) -> ArmRuns:
    optimizer, mode = key
    one = next(run for runs in rates.values() for run in runs.values())
    about = {
        "arm": f"{optimizer}, {mode}",
        **{name: one.settings[name] for name in COMPARED if name in one.settings},
        "optimizer": one.settings.get("options", {}).get("optimizer", one.settings.get("optimizer")),
        "optimizer_args": {name: value for name, value in _args(one).items() if name != "lr"},
    }
    found = (Rate(lr, tuple(runs.get(seed) for seed in seeds)) for lr, runs in sorted(rates.items()))
    return ArmRuns(optimizer, mode, tuple(found), about)
