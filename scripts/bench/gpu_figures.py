"""Prints how long a step of psgd takes with workers on GPUs, with its shard on the CPU and on a GPU, beside the floor.

Arguments are handed on to ``psgd bench step``: gpu_figures.py --params 25000000 --workers 2
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

COMMAND = (sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())", "bench", "step")
SHARD_DEVICES = ("cpu", "cuda")
ROWS = {"psgd_ms": "psgd, ms", "floor_ms": "floor, ms", "ratio_floor": "psgd / floor"}


def measure(shard_device: str, more: Sequence[str]) -> dict[str, Any]:
    """The figures with shards on this device.

    Raises:
        subprocess.CalledProcessError: if they can not be measured; why was said on stderr.
    """
    options = ("--use-gpu", "--shard-device", shard_device, "--plane", "shm", "--peers", "none", *more, "--json")
    done = subprocess.run((*COMMAND, *options), stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def as_markdown(results: dict[str, dict[str, Any]]) -> str:
    """A table, and a line about the machine.

    Args:
        results: by the shards' device.
    """
    lines = [
        "| a synchronous step | " + " | ".join(f"shard on {name}" for name in results) + " |",
        "|---|" + "---|" * len(results),
    ]
    for figure, title in ROWS.items():
        cells = [f"{figures[figure]:.2f}" for figures in results.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    any_ = next(iter(results.values()))
    machine = any_["machine"]
    gpus = ", ".join(machine["gpus"])
    lines += [
        "",
        f"{any_['params']:,} parameters, {any_['workers']} workers on GPUs, {any_['shards']} shard(s), shm; "
        f"{gpus}; {machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}.",
    ]
    return "\n".join(lines)


def main(more: Sequence[str]) -> int:
    """Measure and print.

    Returns:
        The exit code.
    """
    try:
        results = {name: measure(name, more) for name in SHARD_DEVICES}
    except subprocess.CalledProcessError as error:
        return error.returncode
    print(as_markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
