"""A bound on staleness: loosened, it gains much where stragglers come and go, nothing where one is slow for good.

    python -m scripts.experiments.staleness_bound --real

Published: Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server" (NIPS), and
Li et al. 2014, "Scaling Distributed Machine Learning with the Parameter Server" (OSDI): a slot may be s iterations
ahead of the slowest. So much of the waiting at a barrier goes, without the staleness of no bound at all.

Simulated (seconds): 8 slots, one a worker; transient stragglers: compute times are exponential; a permanent one: they
are constant, and one slot takes three times as long. With --real (about ten minutes on two cores) the same as runs on
this machine, with delays injected that are much longer than what is computed; beside what the simulator predicts for
them once it has been calibrated on a single one of them.

Must come out: throughput rises with s, from s = 0 to 8 at least twofold, and the idle share falls, where stragglers are
transient; throughput does not depend on s where one is permanent; predictions are within 15 % of the real runs.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psgd.analysis.run_figures import read_run
from psgd.bench.machine import facts
from psgd.cli.building import parse_straggler
from psgd.config import Straggler
from psgd.core.modes import Async, Rules
from psgd.durations import parse_duration
from psgd.experiments.calibration import Calibration, calibrate
from psgd.experiments.timings import read_timings, simulate
from psgd.runlog import Iteration
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from scripts.experiments.results import Claim, Findings, parser_of, publish, tell

PSGD = (sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())")
NAME = "staleness_bound"
WORKERS = 8
BOUNDS = (0, 1, 2, 4, 8)
TRANSIENT, PERMANENT = KINDS = ("transient", "permanent")
STEPS, QUICK_STEPS = 400, 60
WORLDS: Mapping[str, tuple[World, tuple[Straggler, ...]]] = {
    TRANSIENT: (World(compute=parse_duration("exp:1")), ()),
    PERMANENT: (World(), (Straggler(0, factor=3.0),)),
}
REAL_STEPS, REAL_SEED = {TRANSIENT: 100, PERMANENT: 60}, 1
DELAYS = {TRANSIENT: ("*:exp:300ms",), PERMANENT: ("*:250ms", "0:500ms")}
"""Injected in real runs: they are much longer than anything that eight processes on two cores need a core for."""
CALIBRATED_ON = (TRANSIENT, 2)
MIDDLE = (0.4, 0.9)
"""The share of the pushes that is looked at: before, fast slots still run ahead; behind it, slots run out of work."""
LEAST_GAIN, MOST_SPREAD, MOST_ERROR = 2.0, 1.05, 0.15


@dataclass(frozen=True, slots=True)
class Pace:
    """Of the middle of a run.

    Args:
        pushes_per_s: gradients applied.
        idle_share: of the slots' time, without computing.
    """

    pushes_per_s: float
    idle_share: float


Paces = Mapping[tuple[str, int], Pace]
"""By kind of straggler and bound."""


def pace_of(iterations: Sequence[Iteration]) -> Pace:
    """How fast the middle of a run was.

    Args:
        iterations: by the time at which they ended.
    """
    first, last = (round(share * len(iterations)) for share in MIDDLE)
    middle = iterations[first:last]
    elapsed = sum(each.compute_s + each.wait_s + each.transfer_s for each in middle)
    return Pace(
        len(middle) / (middle[-1].time_s - iterations[first - 1].time_s),
        1 - sum(each.compute_s for each in middle) / elapsed,
    )


def each_pace(make: Callable[[str, int], Pace], what: str) -> Paces:
    """All kinds of stragglers with all bounds."""
    paces = {}
    for kind, bound in ((kind, bound) for kind in KINDS for bound in BOUNDS):
        paces[kind, bound] = make(kind, bound)
        tell(f"{what}, {kind} stragglers, s = {bound}: {paces[kind, bound].pushes_per_s:.2f} pushes a second")
    return paces


def simulated(kind: str, bound: int, steps: int, seeds: int) -> Pace:
    """Medians over the seeds."""
    world, stragglers = WORLDS[kind]
    rules = Rules(Async(bound), WORKERS, shards=1, steps=steps)
    jobs = [TimingJob(rules, WORKERS, stragglers=stragglers, seed=seed) for seed in range(seeds)]
    found = [pace_of(simulate(job, world)) for job in jobs]
    return Pace(
        statistics.median(pace.pushes_per_s for pace in found), statistics.median(pace.idle_share for pace in found)
    )


# ------------------------------------------------------------------ real


def words(kind: str, bound: int, out: Path) -> list[str]:
    """The words behind ``psgd`` for a real run."""
    options = {
        "data": "digits",
        "model": "mlp",
        "mode": "async",
        "staleness": str(bound),
        "workers": str(WORKERS),
        "cpus-per-worker": "0.25",
        "shards": "1",
        "optimizer": "sgd",
        "lr": "0.05",
        "steps": str(REAL_STEPS[kind]),
        "evaluate-every": str(REAL_STEPS[kind]),  # nobody waits for the evaluator
        "seed": str(REAL_SEED),
        "straggler": ",".join(DELAYS[kind]),
        "out": str(out),
    }
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", value))]


def folder_of(runs: Path, kind: str, bound: int) -> Path:
    """Where a real run is."""
    return runs / f"{kind}-{bound}"


def real(kind: str, bound: int, runs: Path) -> Pace:
    """Make the run, if it is not there.

    Raises:
        subprocess.CalledProcessError: if it fails; it has said why.
    """
    out = folder_of(runs, kind, bound)
    if read_run(out) is None:
        subprocess.run((*PSGD, *words(kind, bound, out)), stdout=subprocess.DEVNULL, check=True)
    return pace_of(read_timings(out).iterations)


def predicted(kind: str, bound: int, calibration: Calibration) -> Pace:
    """What the simulator says about a real run, which it has not seen."""
    known = calibration.run.job
    stragglers = tuple(map(parse_straggler, DELAYS[kind]))
    rules = replace(known.rules, mode=Async(bound), steps=REAL_STEPS[kind])
    job = replace(known, rules=rules, stragglers=stragglers)
    return pace_of(simulate(job, calibration.world))


# ------------------------------------------------------------------ what has come of it


def shape(paces: Paces, which: str) -> list[Claim]:
    """What was published."""
    rates = {kind: [paces[kind, bound].pushes_per_s for bound in BOUNDS] for kind in KINDS}
    idle = [paces[TRANSIENT, bound].idle_share for bound in BOUNDS]
    gain, spread = rates[TRANSIENT][-1] / rates[TRANSIENT][0], max(rates[PERMANENT]) / min(rates[PERMANENT])
    rises = all(less < more for less, more in pairwise(rates[TRANSIENT]))
    falls = all(more > less for more, less in pairwise(idle))
    return [
        Claim(
            f"{which}, transient: throughput rises with s, at least {LEAST_GAIN:g}-fold from 0 to 8",
            f"{'rises' if rises else 'does not always rise'}, {gain:.2f}-fold",
            rises and gain >= LEAST_GAIN,
        ),
        Claim(
            f"{which}, transient: the idle share falls with s",
            f"{'falls' if falls else 'does not always fall'}, from {idle[0]:.1%} to {idle[-1]:.1%}",
            falls,
        ),
        Claim(
            f"{which}, permanent: throughput does not depend on s",
            f"the most is {spread:.3f} times the least",
            spread <= MOST_SPREAD,
        ),
    ]


def errors_of(measured: Paces, foretold: Paces) -> dict[tuple[str, int], float]:
    """By how much predictions are off, without that of the run that they were learnt from."""
    return {
        key: foretold[key].pushes_per_s / pace.pushes_per_s - 1
        for key, pace in measured.items()
        if key != CALIBRATED_ON
    }


def foretold_claim(measured: Paces, foretold: Paces) -> Claim:
    """How good predictions are."""
    (kind, bound), worst = max(errors_of(measured, foretold).items(), key=lambda entry: abs(entry[1]))
    return Claim(
        f"predicted throughput is within {MOST_ERROR:.0%} of the real runs'",
        f"the worst, {kind} with s = {bound}, is off by {worst:+.1%}",
        abs(worst) <= MOST_ERROR,
    )


def rows_of(paces: Paces, real: tuple[Paces, Paces] | None) -> list[tuple[str, ...]]:
    """A row for each kind and bound."""
    heading = ("stragglers", "s", "simulated pushes/s", "idle")
    if real is None:
        return [heading, *((*_key(key), *_cells(pace)) for key, pace in paces.items())]
    measured, foretold = real
    errors = errors_of(measured, foretold)
    return [
        (*heading, "real pushes/s", "idle", "predicted pushes/s", "idle", "error"),
        *(
            (
                *_key(key),
                *_cells(pace),
                *_cells(measured[key]),
                *_cells(foretold[key]),
                f"{errors[key]:+.1%}" if key in errors else "calibrated on it",
            )
            for key, pace in paces.items()
        ),
    ]


def _key(key: tuple[str, int]) -> tuple[str, str]:
    return key[0], str(key[1])


def _cells(pace: Pace) -> tuple[str, str]:
    return f"{pace.pushes_per_s:.2f}", f"{pace.idle_share:.1%}"


def draw(paces: Paces, real: tuple[Paces, Paces] | None) -> Figure:
    """Throughput above, idle share below; a column for each kind of straggler, simulated and real."""
    columns = [(kind, f"simulated, {kind}", [("simulated", "C0", "o-", paces)]) for kind in KINDS]
    if real is not None:
        lines = [("measured", "C1", "s-", real[0]), ("predicted", "C0", "o--", real[1])]
        columns += [(kind, f"real, {kind}", lines) for kind in KINDS]
    figure = Figure(figsize=(3.3 * len(columns), 5.6), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False)
    for column, (kind, title, lines) in enumerate(columns):
        above, below = panels[:, column]
        for label, colour, style, of in lines:
            _draw(above, [of[kind, bound].pushes_per_s for bound in BOUNDS], label, colour, style)
            _draw(below, [of[kind, bound].idle_share for bound in BOUNDS], label, colour, style)
        above.set_title(title, fontsize="medium")
        below.set(xlabel="staleness bound s", ylim=(0, 1))
        if len(lines) > 1:
            above.legend(frameon=False, loc="lower right")
    panels[0, 0].set_ylabel("pushes a second")
    panels[1, 0].set_ylabel("idle share")
    return figure


def _draw(axes: Axes, values: Sequence[float], label: str, colour: str, style: str) -> None:
    axes.plot(range(len(BOUNDS)), values, style, color=colour, label=label)
    axes.set_xticks(range(len(BOUNDS)), [str(bound) for bound in BOUNDS])
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * max(values)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main(argv: Sequence[str]) -> int:
    """Make what is missing, write the page."""
    parser = parser_of(__doc__, NAME, seeds=3)
    parser.add_argument("--real", action="store_true", help="real runs, too, and what is predicted for them")
    runs = Path("runs", NAME)
    parser.add_argument("--runs", type=Path, default=runs, help=f"folder of real runs, which are kept ({runs})")
    options = parser.parse_args(argv)
    steps = QUICK_STEPS if options.quick else STEPS
    paces = each_pace(lambda kind, bound: simulated(kind, bound, steps, options.seeds), "simulated")
    claims, notes, both = shape(paces, "simulated"), [], None
    if options.real:
        measured = each_pace(lambda kind, bound: real(kind, bound, options.runs), "real")
        learnt_from = folder_of(options.runs, *CALIBRATED_ON)
        calibration = calibrate(read_timings(learnt_from), learnt_from)
        foretold = each_pace(lambda kind, bound: predicted(kind, bound, calibration), "predicted")
        both = (measured, foretold)
        claims += [*shape(measured, "real"), foretold_claim(measured, foretold)]
        notes = about_real(calibration, compute_ms(options.runs))
    findings = Findings(
        title="A bound on staleness",
        about=f"{WORKERS} slots, one a worker. Simulated: compute times exp:1, or 1 s and 3 s for one slot; {steps} "
        f"steps, medians over {options.seeds} seeds. Ho et al. 2013, Li et al. 2014.",
        claims=claims,
        rows=rows_of(paces, both),
        words={0},
        figure=draw(paces, both),
        notes=[
            f"Throughput and idle share are those of the middle of a run, from {MIDDLE[0]:.0%} to {MIDDLE[1]:.0%} of "
            "its pushes: before, fast slots still run ahead up to the bound; behind it, slots run out of work.",
            *notes,
        ],
    )
    return publish(findings, options.out, f"python -m scripts.experiments.{NAME}{' --real' if options.real else ''}")


def compute_ms(runs: Path) -> list[float]:
    """What a mini-batch took in each real run, on average, without what was injected."""
    taken = [read_timings(folder_of(runs, kind, bound)).compute_s() for kind in KINDS for bound in BOUNDS]
    return [1000 * statistics.fmean(second for seconds in each.values() for second in seconds) for each in taken]


def about_real(calibration: Calibration, means: Sequence[float]) -> list[str]:
    """How real runs and predictions were made.

    Args:
        means: what a mini-batch took in each run, ms.
    """
    kind, bound = CALIBRATED_ON
    world, measured, simulated = calibration.world, calibration.measured, calibration.simulated
    return [
        f"Real: the MLP on digits, one shard, all processes on one machine of {facts()['cores']} cores; injected "
        f"delays `{' '.join(DELAYS[TRANSIENT])}` ({TRANSIENT}, {REAL_STEPS[TRANSIENT]} steps) or "
        f"`{' '.join(DELAYS[PERMANENT])}` ({PERMANENT}, {REAL_STEPS[PERMANENT]} steps).",
        f"Predicted: the simulator calibrated on the run of {kind} stragglers with s = {bound} alone: compute "
        f"{world.compute}, service {world.service} s. Of that run it says {simulated.pushes_per_s:.2f} pushes a "
        f"second, measured are {measured.pushes_per_s:.2f}. The delays, drawn from the seed, are the same in both.",
        "Not modelled: processes that want the same core, because all compute at once (in lockstep, s = 0) or because "
        f"the machine has other work. A mini-batch took {min(means):.1f} to {max(means):.1f} ms on average, depending "
        "on the run; what is injected is long beside that.",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
