"""Whether arms were compared under equal conditions: read from the logs' settings, not taken for granted."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from psgd.analysis.comparison import ComparisonFigures
from psgd.analysis.curves import batches_per_step
from psgd.analysis.run_figures import RunFigures

Settings = Mapping[str, Any]
Arms = Mapping[str, tuple[RunFigures, ...]]
"""The complete runs of each arm that has any, by its name."""

COMPARED = ("mode", "staleness", "backups", "gather", "correction", "local_steps")
"""What makes a mode."""
EXPECTED = {
    *COMPARED,
    *("optimizer", "optimizer_args", "lr", "seed", "options", "out", "json", "dry_run"),
    *("softsync", "outer_lr", "outer_momentum"),
}
"""Settings that differ by what is compared, or by how it was called."""
SAID = {"slots", "batch_size", "model", "data", "limit", "warm_start", "bytes", "workers", "shards", "stragglers"}
"""Settings that have sentences of their own."""
OVERLAP = "overlap"
"""A setting that local steps leave no choice in: their push is not known before the last one has ended."""
LENGTHS = {"steps": "A slot's mini-batches", "evaluate_every": "A slot's mini-batches between evaluations"}
"""Settings that are counted in steps, which local steps make longer."""
REPEATED = {"straggler", "optimizers", "modes", "lrs", "seeds"}
"""Options that say in their own words what other settings say."""
MODEL = ("model", "data", "limit", "warm_start", "bytes")
"""What the first weights and the order of the samples follow from, beside the seed."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the arms have in common, and what they have not, one sentence each.

    Args:
        equal: as far as the logs say.
        differing: each names the arms, and what each has.
    """

    equal: tuple[str, ...]
    differing: tuple[str, ...]


def check_conditions(figures: ComparisonFigures) -> Conditions:
    """Compare the settings of all arms, each at the learning rate at which it is shown."""
    arms = {name: rate.complete for name, _, rate in figures.shown if rate.complete}
    if not arms:
        return Conditions((), ())
    equal: list[str] = []
    differing: list[str] = []
    compared = len({arm.optimizer for arm in figures.arms}) > 1
    trained = any(run.has_gradients for runs in arms.values() for run in runs)
    checks: list[Callable[[Arms], tuple[bool, str]]] = [_weights, _batch] if trained else [_seeds, _batch]
    checks += [] if compared or not trained else [_optimizer]
    checks += [] if compared or not trained or figures.searched else [_rate]
    for check in (*checks, _machines, _stragglers):
        same, words = check(arms)
        (equal if same else differing).append(f"{words}.")
    rest = [f"{words}." for words in _rest(arms, figures.budget.kind in ("samples", "various"))]
    return Conditions((*equal, *([] if rest else ["All other settings are the same."])), (*differing, *rest))


def setting(run: RunFigures, name: str) -> Any:
    """A setting of the run itself, else an option of the command that made it; None if neither is there."""
    return run.settings.get(name, run.settings.get("options", {}).get(name))


def rate_of(settings: Settings) -> float | None:
    """The learning rate that a run was set to; None if the log does not say."""
    named = settings.get("options", {}).get("lr", settings.get("optimizer_args", {}).get("lr"))
    return named if isinstance(named, int | float) else None


def _weights(arms: Arms) -> tuple[bool, str]:
    for name in MODEL:
        same, words = _compare(arms, name, partial(setting, name=name))
        if not same:
            return False, words
    same, seeds = _seeds(arms)
    if not same:
        return False, seeds
    untold = all(setting(run, "model") is None for runs in arms.values() for run in runs)
    hedge = " (if the programs that made them had the same model and data: the logs do not name them)" if untold else ""
    return True, f"{seeds}, so the same first weights and the same data order per slot{hedge}"


def _seeds(arms: Arms) -> tuple[bool, str]:
    same, words = _compare_seeds(arms)
    return same, f"Same seeds ({', '.join(str(run.settings.get('seed')) for run in _runs(arms))})" if same else words


def _runs(arms: Arms) -> tuple[RunFigures, ...]:
    """Of the first arm."""
    return next(iter(arms.values()))


def _batch(arms: Arms) -> tuple[bool, str]:
    def words(run: RunFigures) -> str:
        slots, size = run.settings["slots"], run.settings["batch_size"]
        counted = f"{slots} slot{'' if slots == 1 else 's'}"
        return (
            f"{counted} with batches of any size" if size is None else f"{counted} × {size} = {slots * size:,} samples"
        )

    same, differing = _compare(arms, "The global batch", words)
    if not same:
        return False, differing
    as_long, _ = _compare(arms, "", lambda run: batches_per_step(run.settings))
    return (
        True,
        f"Same global batch: {words(_first(arms))}{'' if as_long else ', of which local steps make several a step'}",
    )


def _optimizer(arms: Arms) -> tuple[bool, str]:
    def words(run: RunFigures) -> str:
        args = {key: value for key, value in run.settings.get("optimizer_args", {}).items() if key != "lr"}
        given = [f"{key}={json.dumps(value)}" for key, value in args.items() if value not in (None, False, 0)]
        return " with ".join([run.settings.get("optimizer", "unknown"), *([", ".join(given)] if given else [])])

    same, differing = _compare(arms, "The optimizer", words)
    return same, f"Same optimizer: {words(_first(arms))}" if same else differing


def _rate(arms: Arms) -> tuple[bool, str]:
    def words(run: RunFigures) -> str:
        rate = rate_of(run.settings)
        return "unknown" if rate is None else f"{rate:g}"

    same, differing = _compare(arms, "The learning rate", words)
    return same, f"Same learning rate: {words(_first(arms))}" if same else differing


def _machines(arms: Arms) -> tuple[bool, str]:
    def words(run: RunFigures) -> str:
        counts = ((run.settings.get(name), name) for name in ("workers", "shards"))
        said = (f"{count} {name[:-1] if count == 1 else name}" for count, name in counts if count is not None)
        return ", ".join(said) or "unknown"

    same, differing = _compare(arms, "The processes", words)
    return same, f"Same processes: {words(_first(arms))}" if same else differing


def _stragglers(arms: Arms) -> tuple[bool, str]:
    def words(run: RunFigures) -> str:
        return "; ".join(map(_straggler, run.settings.get("stragglers") or ())) or "none"

    same, differing = _compare(arms, "The stragglers", words)
    return same, f"Same stragglers: {words(_first(arms))}" if same else differing


def _straggler(fields: Settings) -> str:
    """A slot, or all of them, and how it is slowed."""
    which = "every slot" if fields.get("slot") is None else f"slot {fields['slot']}"
    slowed = [f"{fields['factor']:g}× slower"] if fields.get("factor", 1) != 1 else []
    slowed += [f"{fields['delay']} later"] if fields.get("delay", "0") != "0" else []
    return f"{which} {' and '.join(slowed)}".rstrip()


def _rest(arms: Arms, by_length: bool) -> list[str]:
    """Settings that nobody has thought of, and that differ all the same.

    Args:
        by_length: whether the runs' lengths are what ends them.
    """
    names = {
        name
        for runs in arms.values()
        for run in runs
        for name in {*run.settings, *run.settings.get("options", {})} - EXPECTED - SAID - REPEATED - {*LENGTHS}
    }
    found = [_compare(arms, name, partial(setting, name=name)) for name in sorted(names - {OVERLAP})]
    free = {name: runs for name, runs in arms.items() if not any(run.settings.get("local_steps") for run in runs)}
    found += [_compare(free, OVERLAP, partial(setting, name=OVERLAP))] if free else []
    found += [_compare(arms, words, partial(_mini_batches, name=name)) for name, words in LENGTHS.items() if by_length]
    return [words for same, words in found if not same]


def _mini_batches(run: RunFigures, name: str) -> int | None:
    steps: int | None = run.settings.get(name)
    return None if steps is None else steps * batches_per_step(run.settings)


def _first(arms: Arms) -> RunFigures:
    return _runs(arms)[0]


def _compare(arms: Arms, what: str, read: Callable[[RunFigures], Any]) -> tuple[bool, str]:
    """Whether all runs of all arms have the same of it, and the words if they have not."""
    values = {name: tuple(dict.fromkeys(_text(read(run)) for run in runs)) for name, runs in arms.items()}
    same = len({value for each in values.values() for value in each}) == 1
    return same, "" if same else _differing(what, values)


def _compare_seeds(arms: Arms) -> tuple[bool, str]:
    """The same, of what an arm's runs have together."""
    values = {name: tuple(_text(run.settings.get("seed")) for run in runs) for name, runs in arms.items()}
    same = len({frozenset(each) for each in values.values()}) == 1
    return same, "" if same else _differing("seeds", values)


def _differing(what: str, values: Mapping[str, Iterable[str]]) -> str:
    verb = "differ" if what.endswith("s") else "differs"
    having: dict[str, list[str]] = {}
    for name, each in values.items():
        having.setdefault(", ".join(each), []).append(name)
    told = (f"{', '.join(names)}{':' if len(names) > 1 else ''} {found}" for found, names in having.items())
    return f"{what} {verb}: {'; '.join(told)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
