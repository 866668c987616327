"""Adam, RMSProp and SGD with momentum on MNIST, synchronous and asynchronous: what each reaches beside what it should.

    python scripts/mnist_optimizers.py --data-dir MNIST

runs `psgd compare` (about an hour on two cores) and writes mnist_optimizers.md and its pictures. Interrupted, the same
command goes on where it was.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from psgd.bench.machine import facts

PSGD = (sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())")
SEEDS = (0, 1, 2)
WORKERS, BATCH_SIZE, SAMPLES = 2, 32, 60_000
MODES = ("sync", "async:4")
BARS = {"adam": 0.989, "rmsprop": 0.986, "sgd:momentum=0.9": 0.984}
"""Test accuracy that each has to reach in synchronous mode, as the median over the seeds."""
RATES = ("adam=0.002", "rmsprop=0.001", "sgd=0.03")
NAME = "mnist_optimizers"
PICTURE = "curves.png"


def words(data_dir: str, epochs: int, out: str, seeds: Sequence[int]) -> list[str]:
    """The words behind ``psgd``; seeds follow each other."""
    steps = SAMPLES // (WORKERS * BATCH_SIZE) * epochs
    options = {
        "data": "mnist",
        "data-dir": data_dir,
        "model": "cnn",
        "optimizers": ",".join(BARS),
        "lrs": ",".join(RATES),
        "modes": ",".join(MODES),
        "workers": str(WORKERS),
        "shards": "2",
        "batch-size": str(BATCH_SIZE),
        "schedule": "cosine",
        "schedule-args": f"T_max={steps}",
        "epochs": str(epochs),
        "seed": str(seeds[0]),
        "seeds": str(len(seeds)),
        "out": out,
    }
    return ["compare", *(word for name, value in options.items() for word in (f"--{name}", value))]


def compare(asked: Sequence[str]) -> dict[str, Any]:
    """Run the command; its progress goes to stderr.

    Raises:
        subprocess.CalledProcessError: if it fails; it has said why.
    """
    done = subprocess.run((*PSGD, *asked, "--json"), stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def as_markdown(report: dict[str, Any], command: Sequence[str], machine: dict[str, Any]) -> str:
    """The bars beside what was reached, and how."""
    lines = [
        "# Optimizers on MNIST",
        "",
        f"Test accuracy of the CNN, {report['title'].partition(', ')[2]}: median over the seeds "
        f"{', '.join(map(str, report['seeds']))} (least–greatest).",
        "",
        f"| optimizer | lr | goal, sync | {' | '.join(MODES)} | |",
        f"|---|---:|---:|{'---:|' * len(MODES)}---|",
        *(_row(optimizer, bar, report) for optimizer, bar in BARS.items()),
        "",
        f"![test accuracy against samples and against seconds]({NAME}_{PICTURE})",
        "",
        *(f"- {note}" for note in report["notes"]),
        "",
        f"Made by `psgd {' '.join(command)}` on {machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}, "
        f"Ray {machine['ray']}.",
        "",
    ]
    return "\n".join(lines)


def _row(optimizer: str, bar: float, report: dict[str, Any]) -> str:
    arms = {arm["arm"]: arm for arm in report["modes"]}
    first, *_ = found = [arms[f"{optimizer}, {mode}"] for mode in MODES]
    reached = first["figures"]["test_accuracy"]["median"]
    verdict = "met" if reached is not None and reached >= bar else "missed"
    cells = [optimizer, f"{first['lr']:g}", f"≥ {100 * bar:.1f} %", *map(_spread, found)]
    return f"| {' | '.join([*cells, verdict])} |"


def _spread(arm: dict[str, Any]) -> str:
    median, low, high = (arm["figures"]["test_accuracy"][name] for name in ("median", "low", "high"))
    if median is None or low is None or high is None:
        return "diverged"
    return f"{100 * median:.2f} % ({100 * low:.2f}–{100 * high:.2f})"


def main(argv: Sequence[str]) -> None:
    """Make the runs that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST's original IDX files")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the data (8)")
    parser.add_argument("--out", type=Path, default=Path("runs", NAME), help=f"folder of the runs (runs/{NAME})")
    parser.add_argument(
        "--jobs", type=int, default=1, help="seeds at the same time, each with processes of its own (1)"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the page")
    options = parser.parse_args(argv)
    # The folder is a setting of each run: absolute, it is the same wherever this is called.
    data_dir, out = str(options.data_dir.absolute()), str(options.out)
    if options.jobs > 1:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda seed: compare(words(data_dir, options.epochs, out, [seed])), SEEDS))
    report = compare(words(data_dir, options.epochs, out, SEEDS))
    options.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.out / PICTURE, options.results / f"{NAME}_{PICTURE}")
    page = as_markdown(report, words("MNIST", options.epochs, "OUT", SEEDS), facts())
    (options.results / f"{NAME}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
