"""What this process holds of shared memory: descriptors, mappings, and the threads of the plane."""

import gc
import os
import threading
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 20.0


class Footprint(NamedTuple):
    descriptors: int
    segments: int
    mappings: int
    threads: int


def footprint() -> Footprint:
    gc.collect()  # what tests before this one have left to be collected
    opened = [target for target in map(_target, Path("/proc/self/fd").iterdir()) if _is_ours(target)]
    mapped = Path("/proc/self/maps").read_text().splitlines()
    return Footprint(
        descriptors=len(opened),
        segments=sum("memfd:psgd" in target for target in opened),
        mappings=sum("memfd:psgd" in line for line in mapped),
        threads=sum(thread.name.startswith("psgd-shm") for thread in threading.enumerate()),
    )


def visits_end() -> None:
    """Wait until the server has let go of everybody who has gone."""
    for thread in threading.enumerate():
        if thread.name == "psgd-shm-visit":
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a visit goes on, though the visitor has gone"


def _is_ours(target: str) -> bool:
    """Whatever may be: but gRPC's TCP sockets and event descriptors, of tests before, come and go when they like."""
    if target.startswith("socket:"):
        inodes = {line.split()[6] for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]}
        return target.removeprefix("socket:[").removesuffix("]") in inodes
    return not target.startswith("anon_inode:")


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except FileNotFoundError:  # the one that the listing itself had
        return ""
