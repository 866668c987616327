"""What all experiments have: options, runs that are kept, claims with their verdicts, a page with its picture."""

import argparse
import json
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from psgd.analysis.tables import Row, as_markdown
from psgd.runlog import finite

RESULTS = Path(__file__).resolve().parents[1] / "results"
TABLE, PICTURE = "table.md", "figure.png"
DPI = 120


@dataclass(frozen=True, slots=True)
class Claim:
    """What must come out, beside what did.

    Args:
        words: what must come out, with its bound.
        found: what did, with the number.
        shown: whether that is within the bound.
    """

    words: str
    found: str
    shown: bool

    @property
    def verdict(self) -> str:
        """In words."""
        return "shown" if self.shown else "not shown"


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What an experiment has to say.

    Args:
        title: of the page.
        about: what was simulated.
        claims: each with its verdict.
        rows: the table, its heading first.
        words: the columns of the table that hold words.
        figure: the picture.
        notes: what else there is to know.
    """

    title: str
    about: str
    claims: Sequence[Claim]
    rows: Sequence[Row]
    words: Container[int]
    figure: Figure
    notes: Sequence[str] = ()


class Runs:
    """Figures of runs by their settings, kept in a file, so that an interrupted experiment goes on where it was.

    Args:
        file: of JSON lines.

    Example:
        >>> import tempfile
        >>> runs = Runs(Path(tempfile.mkdtemp()) / "runs.jsonl")
        >>> [runs.of({"seed": 0}, lambda: {"error": 0.5}), runs.of({"seed": 0}, lambda: {"error": 0.1})]
        [{'error': 0.5}, {'error': 0.5}]
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, dict[str, Any]] = {}
        if file.is_file():
            whole, end, _torn = file.read_text(encoding="utf-8").rpartition("\n")  # a writer may have been killed
            file.write_text(whole + end, encoding="utf-8")
            lines = whole.splitlines()
            self._kept = {_key(kept["settings"]): kept["figures"] for kept in map(json.loads, lines)}

    def of(self, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of the run with these settings, made if they are not there.

        Args:
            settings: plain JSON.
            make: makes them, plain JSON, where a number that is NaN or Inf becomes None.
        """
        key = _key(settings)
        if key not in self._kept:
            self._kept[key] = finite(make())
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"settings": settings, "figures": self._kept[key]}) + "\n")
        return self._kept[key]


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def parser_of(doc: str | None, name: str, seeds: int | None = None) -> argparse.ArgumentParser:
    """The options that every experiment has.

    Args:
        doc: the script's docstring.
        name: of the experiment.
        seeds: how many there are if nothing is said; None: nothing is random.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / name,
        help=f"folder for {TABLE} and {PICTURE} (scripts/results/{name})",
    )
    if seeds is not None:
        parser.add_argument("--seeds", type=at_least_one, default=seeds, help=f"how many, from 0 ({seeds})")
    parser.add_argument("--quick", action="store_true", help="seconds only: too little for what must come out")
    return parser


def add_runs(parser: argparse.ArgumentParser, name: str) -> None:
    """The option of an experiment whose runs are kept."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs", f"{name}.jsonl"),
        help=f"file of runs that are complete and not made again, unless you delete it (runs/{name}.jsonl)",
    )


def at_least_one(word: str) -> int:
    """A whole number >= 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {word}")
    return int(word)


def tell(words: str) -> None:
    """Progress, to stderr."""
    print(words, file=sys.stderr, flush=True)


def publish(findings: Findings, out: Path, command: str) -> int:
    """Write page and picture, print the verdicts.

    Args:
        command: that makes them.

    Returns:
        The exit code: 1 if a claim is not shown.
    """
    out.mkdir(parents=True, exist_ok=True)
    findings.figure.savefig(out / PICTURE, dpi=DPI)
    (out / TABLE).write_text(as_page(findings, command), encoding="utf-8")
    for claim in findings.claims:
        print(f"{claim.verdict}: {claim.words}: {claim.found}")
    return 0 if all(claim.shown for claim in findings.claims) else 1


def as_page(findings: Findings, command: str) -> str:
    """Claims with their verdicts, picture and table."""
    verdicts = [("must come out", "came out", "verdict"), *((c.words, c.found, c.verdict) for c in findings.claims)]
    sections = [
        f"# {findings.title}",
        findings.about,
        as_markdown(verdicts, words={0, 1, 2}),
        f"![{findings.title}]({PICTURE})",
        as_markdown(findings.rows, findings.words),
        "\n".join(f"- {note}" for note in findings.notes),
        f"Made by `{command}`.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"
