"""Memory of the shards of a run: their proportional set size, as Linux counts it.

Pages that several processes share count once, divided among them; so a shard's code and shared segments do not count
twice.
"""

import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SHARD_TITLE = "ray::ShardHost"
"""How Ray titles the process of a shard's actor."""

MB = 10**6
_PROC = Path("/proc")


@dataclass(slots=True)
class ShardMemory:
    """What was seen of the shards of this process's run.

    Attributes:
        pss_mb: each shard's samples, by process id, in the order in which they were taken.
    """

    pss_mb: dict[int, list[float]] = field(default_factory=dict)

    @property
    def peaks_mb(self) -> list[float]:
        """The most that each shard has had."""
        return [max(samples) for samples in self.pss_mb.values()]

    @property
    def growth_mb(self) -> list[float]:
        """How much more each shard has had, usually, in the last third of the run than in the middle one."""
        return [_growth(samples) for samples in self.pss_mb.values()]

    def sample(self) -> None:
        """Look at every shard below this process."""
        for pid in descendants(os.getpid()):
            pss = pss_mb(pid) if _title(pid).startswith(SHARD_TITLE) else None
            if pss is not None:
                self.pss_mb.setdefault(pid, []).append(pss)


@contextmanager
def watching(every_s: float) -> Iterator[ShardMemory]:
    """Sample, on a thread, the shards that this process's run starts; to read is a walk through their page tables."""
    memory, ended = ShardMemory(), threading.Event()

    def watch() -> None:
        while not ended.wait(every_s):
            memory.sample()

    thread = threading.Thread(target=watch, name="psgd-bench-memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def _growth(samples: Sequence[float]) -> float:
    third = len(samples) // 3
    return statistics.median(samples[-third:]) - statistics.median(samples[-2 * third : -third]) if third else 0.0


def pss_mb(pid: int) -> float | None:
    """The proportional set size of a process in 10^6 bytes; None if it is gone."""
    rollup = _read(_PROC / str(pid) / "smaps_rollup")
    kilobytes = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    return kilobytes[0] * 1024 / MB if kilobytes else None


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            behind_name = _read(entry / "stat").rpartition(")")[2].split()  # a name may have blanks and brackets
            if behind_name:
                children.setdefault(int(behind_name[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def _title(pid: int) -> str:
    return _read(_PROC / str(pid) / "cmdline")


def _read(path: Path) -> str:
    """What the kernel says; nothing about a process that is gone, or another user's."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
