"""Runs every benchmark whose goals the README quotes: python scripts/bench/run_all.py --data-dir MNIST --out FOLDER.

Writes ``results.json`` (what each command has printed) and ``results.md`` (the goals beside what was measured).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PSGD = (sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())")

COMMANDS = {
    "sync, 25 M": "step --params 25000000",
    "sync, 250 k": "step --params 250000",
    "sync, 25 M, 4 workers": "step --params 25000000 --workers 4 --peers ddp",
    "async, 25 M": "step --params 25000000 --mode async --peers none",
    "rpc plane, 25 M": "step --params 25000000 --plane rpc --peers ray",
    "rpc plane, 25 M, bfloat16": "step --params 25000000 --plane rpc --wire bfloat16 --peers none",
    "MNIST CNN": "train --data mnist --model cnn",
    "MNIST CNN, batch 128": "train --data mnist --model cnn --batch-size 128",
    "rpc plane": "plane --plane rpc",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of a command has to be.

    Args:
        command: a key of `COMMANDS`.
        figure: a key of what it prints.
        at_least: the goal is a least value, not a greatest one.
    """

    command: str
    figure: str
    value: float
    at_least: bool = False

    def is_met(self, measured: float) -> bool:
        """Whether what was measured is good enough."""
        return measured >= self.value if self.at_least else measured <= self.value


GOALS = (
    Goal("sync, 25 M", "ratio_ddp", 0.6),
    Goal("sync, 25 M", "ratio_ray", 0.15),
    Goal("sync, 25 M", "ratio_floor", 1.25),
    Goal("sync, 250 k", "ratio_ddp", 0.5),
    Goal("sync, 25 M, 4 workers", "ratio_ddp", 0.5),
    Goal("async, 25 M", "ratio_push", 0.65),
    Goal("rpc plane, 25 M", "ratio_raw", 1.25),
    Goal("rpc plane, 25 M", "ratio_ray", 0.75),
    Goal("rpc plane, 25 M, bfloat16", "ratio_float32", 0.65),
    Goal("MNIST CNN", "ratio_sync", 0.92, at_least=True),
    Goal("MNIST CNN", "ratio_async", 0.92, at_least=True),
    Goal("MNIST CNN, batch 128", "ratio_sync", 0.92, at_least=True),
    Goal("MNIST CNN, batch 128", "ratio_async", 0.92, at_least=True),
)


def run(name: str, more: Sequence[str]) -> dict[str, Any]:
    """Run a command, with its progress on stderr.

    Raises:
        subprocess.CalledProcessError: if it fails; it has said why.
    """
    command = ("bench", *COMMANDS[name].split(), *more, "--json")
    print(f"{name}: psgd {' '.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run((*PSGD, *command), stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def as_markdown(results: dict[str, dict[str, Any]]) -> str:
    """A table of the goals, and a line about the machine."""
    lines = ["| measurement | command | figure | goal | measured | |", "|---|---|---|---|---|---|"]
    for goal in GOALS:
        if goal.command not in results:
            continue
        measured = results[goal.command][goal.figure]
        sign, verdict = "≥" if goal.at_least else "≤", "met" if goal.is_met(measured) else "missed"
        command = f"`psgd bench {COMMANDS[goal.command]}`"
        cells = (goal.command, command, f"`{goal.figure}`", f"{sign} {goal.value:g}", f"{measured:.3f}", verdict)
        lines.append(f"| {' | '.join(cells)} |")
    machine = next(iter(results.values()))["machine"]
    about = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; torch {machine['torch']}"
    return "\n".join([*lines, "", f"Medians of one run each, on {about}, Ray {machine['ray']}.", ""])


def main() -> None:
    """Run the chosen commands one after another; after each, everything so far is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with MNIST's original IDX files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="measurements (all)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.only:
        results[name] = run(name, ("--data-dir", options.data_dir) if "--data" in COMMANDS[name] else ())
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (options.out / "results.md").write_text(as_markdown(results), encoding="utf-8")


if __name__ == "__main__":
    main()
