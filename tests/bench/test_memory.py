import os
from functools import partial

import psutil

from psgd.bench.memory import ShardMemory, descendants, pss_mb
from psgd.bench.processes import serving
from tests.bench.test_processes import server

serve = partial(server, "here")


def test_a_process_has_memory_and_one_that_is_gone_has_none() -> None:
    resident = psutil.Process().memory_info().rss / 1e6
    measured = pss_mb(os.getpid())
    assert measured is not None
    assert 0.1 * resident < measured < 1.5 * resident
    assert pss_mb(2**22 + 1) is None


def test_descendants_are_found_at_any_depth() -> None:
    with serving([serve]) as ((_, pid),):
        assert pid in descendants(os.getpid())
        assert pid in descendants(os.getppid())


def test_processes_that_are_no_shards_do_not_count() -> None:
    memory = ShardMemory()
    with serving([serve]):
        memory.sample()
    assert memory.pss_mb == {}


def test_peaks_and_growth_come_from_the_samples() -> None:
    memory = ShardMemory({1: [1.0, 9.0, 2.0, 3.0, 5.0, 5.0], 2: [4.0]})
    assert memory.peaks_mb == [9.0, 4.0]
    assert memory.growth_mb == [5.0 - 2.5, 0.0]
