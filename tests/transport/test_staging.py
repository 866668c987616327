import gc

import numpy as np

from psgd.transport.payload import copy
from psgd.transport.staging import Staging

SIZE = 4096


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_block_comes_back_when_nobody_refers_to_it() -> None:
    staging = Staging(SIZE, keep=2)
    first = staging.take(SIZE)
    where = address(first)
    del first
    assert address(staging.take(SIZE)) == where


def test_block_is_not_lent_twice_while_a_part_of_it_is_in_use() -> None:
    staging = Staging(SIZE, keep=2)
    first = staging.take(SIZE)
    gradient = np.frombuffer(first, np.float32)[:2]
    where = address(first)
    del first
    gc.collect()
    second = staging.take(SIZE)
    assert address(second) != where
    del gradient
    assert address(staging.take(SIZE)) == where


def test_no_more_blocks_are_kept_than_asked_for() -> None:
    staging = Staging(SIZE, keep=1)
    views = [staging.take(SIZE) for _ in range(3)]
    addresses = {address(view) for view in views}
    assert len(addresses) == 3
    views.clear()
    kept, fresh = staging.take(SIZE), staging.take(SIZE)
    assert address(kept) in addresses
    assert address(fresh) != address(kept)


def test_other_sizes_are_lent_but_not_kept() -> None:
    staging = Staging(SIZE, keep=1)
    assert [staging.take(size).nbytes for size in (0, 5, 2 * SIZE)] == [0, 5, 2 * SIZE]
    assert staging.take(SIZE).nbytes == SIZE


def test_lent_memory_is_writable() -> None:
    view = Staging(3, keep=1).take(3)
    copy(view, memoryview(b"abc"))
    assert bytes(view) == b"abc"
