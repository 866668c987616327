"""Learning rate and weight decay for MNIST: a grid beside Bayesian search with fewer trials.

    python scripts/tune_mnist.py --data-dir MNIST

runs `psgd tune` once for each (some minutes on two cores) and writes tune_mnist.md and its pictures. Interrupted, the
same command goes on where it was.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgd.analysis.tables import as_markdown
from psgd.bench.machine import facts

PSGD = (sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())")
NAME = "tune_mnist"
METRIC = "test_accuracy"
LR, DECAY = "lr", "optimizer_args.weight_decay"
GRID = {LR: "0.001,0.01,0.1,1", DECAY: "0,1e-4,1e-3,1e-2"}
RANGES = {LR: "log:1e-3:1", DECAY: "log:1e-5:1e-2"}
BAYESIAN_TRIALS = 10
SAMPLES_A_STEP = 2 * 32
SEARCHES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "grid": ("grid", GRID),
    "tpe": ("tree of Parzen estimators", RANGES),
    "gp": ("Gaussian process", RANGES),
}
"""What each is called, and where it looks: all of them between the same bounds, but for no decay at all."""


def words(search: str, data_dir: str, limit: int, epochs: int, out: str) -> list[str]:
    """The words behind ``psgd``."""
    options = {
        "data": "mnist",
        "data-dir": data_dir,
        "limit": str(limit),
        "model": "cnn",
        "optimizer": "sgd",
        "optimizer-args": "momentum=0.9",
        "epochs": str(epochs),
        "evaluate-every": str(limit // SAMPLES_A_STEP * epochs),  # once, at the end
        "plane": "memory",
        "search": search,
        **({} if search == "grid" else {"trials": str(BAYESIAN_TRIALS)}),
    }
    space = [word for name, domain in SEARCHES[search][1].items() for word in ("--space", f"{name}={domain}")]
    return ["tune", *(word for name, value in options.items() for word in (f"--{name}", value)), *space, "--out", out]


def search(asked: Sequence[str]) -> None:
    """Run the command; its progress goes to stderr.

    Raises:
        subprocess.CalledProcessError: if it fails; it has said why.
    """
    subprocess.run((*PSGD, *asked, "--resume", "--json"), stdout=subprocess.DEVNULL, check=True)


def as_page(found: Mapping[str, Sequence[Mapping[str, Any]]], about: str, commands: Mapping[str, str]) -> str:
    """What each search has found, side by side and trial by trial.

    Args:
        found: the trials of each, the best first.
        about: what was trained, on what.
    """
    heading = ("search", "trials", "best test accuracy", "at trial", "learning rate", "weight decay")
    sections = [
        "# Learning rate and weight decay for MNIST",
        f"{about} A trial's accuracy is that of its last evaluation, on the test set: it says which setting is best, "
        "not how well the best one does on other data.",
        as_markdown([heading, *(_summary(name, trials) for name, trials in found.items())], words={0}),
    ]
    for name, trials in found.items():
        title = SEARCHES[name][0]
        sections += [
            f"## {title[0].upper()}{title[1:]}",
            f"`psgd {commands[name]}`",
            f"![settings and accuracy of each trial, {title}]({NAME}_{name}.png)",
            as_markdown(
                [("trial", "learning rate", "weight decay", "test accuracy", "status"), *map(_row, trials)], words={4}
            ),
        ]
    return "\n\n".join([*sections, ""])


def _summary(name: str, trials: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    _, lr, decay, accuracy, _ = _row(trials[0])
    return (SEARCHES[name][0], str(len(trials)), accuracy, str(trials[0]["number"]), lr, decay)


def _row(trial: Mapping[str, Any]) -> tuple[str, ...]:
    point, evaluations = trial["point"], trial["evaluations"]
    accuracy = evaluations[-1]["metrics"][METRIC] if evaluations else None
    words = "–" if accuracy is None else f"{100 * accuracy:.2f} %"
    return (str(trial["number"]), f"{point[LR]:.3g}", f"{point[DECAY]:.2g}", words, trial["status"])


def main(argv: Sequence[str]) -> None:
    """Make the trials that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST's original IDX files")
    parser.add_argument("--limit", type=int, default=4000, help="training samples (4000)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them (3)")
    parser.add_argument("--out", type=Path, default=Path("runs", NAME), help=f"folder of the searches (runs/{NAME})")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the page")
    options = parser.parse_args(argv)
    found, commands = {}, {}
    options.results.mkdir(parents=True, exist_ok=True)
    for name in SEARCHES:
        folder = options.out / name
        # The folder is a setting of the search: absolute, it is the same wherever this is called.
        search(words(name, str(options.data_dir.absolute()), options.limit, options.epochs, str(folder)))
        found[name] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["trials"]
        commands[name] = " ".join(words(name, "MNIST", options.limit, options.epochs, "OUT"))
        shutil.copyfile(folder / "parallel.png", options.results / f"{NAME}_{name}.png")
    machine = facts()
    about = (
        f"The CNN, {options.limit:,} samples, {options.epochs} epochs of SGD with momentum 0.9, 2 slots of 32, "
        f"on {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, Ray {machine['ray']}."
    )
    (options.results / f"{NAME}.md").write_text(as_page(found, about, commands), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
