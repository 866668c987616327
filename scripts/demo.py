"""Train digits synchronously, then asynchronously, with the installed `psgd`, and print both in a table.

    python scripts/demo.py [OUT]

The runs are kept in OUT (default: a new folder below runs/).
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PSGD = Path(sys.executable).with_name("psgd")
SHARED = ("--data", "digits", "--workers", "2", "--shards", "2")
RUNS = {"sync": ("--mode", "sync"), "async, staleness 2": ("--mode", "async", "--staleness", "2")}
COLUMNS = ("mode", "test accuracy", "test loss", "samples/s", "seconds", "lag mean", "lag max")


def main(argv: Sequence[str]) -> int:
    """Run both; the exit code is that of the first one that fails."""
    out = Path(argv[0]) if argv else Path("runs") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    rows = []
    for name, options in RUNS.items():
        command = [str(PSGD), "train", *SHARED, *options, "--out", str(out / options[1]), "--json"]
        print("$", " ".join(["psgd", *command[1:]]), file=sys.stderr, flush=True)
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if run.returncode != 0:
            print(f"demo: the {name} run ended with exit code {run.returncode}", file=sys.stderr)
            return run.returncode
        rows.append(row(name, json.loads(run.stdout.splitlines()[-1])))
    print(table([COLUMNS, *rows]))
    return 0


def row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a run."""
    return (
        name,
        f"{figures['test_accuracy']:.4f}",
        f"{figures['test_loss']:.4f}",
        f"{figures['samples_per_s']:,.0f}",
        f"{figures['seconds']:.1f}",
        f"{figures['lag']['mean']:.2f}",
        str(figures["lag"]["max"]),
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
