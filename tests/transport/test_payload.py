import numpy as np
import pytest

from psgd.core.ids import Slot, Step, Version
from psgd.core.messages import Inspect, Load, Pulled, Push, Refused
from psgd.transport.payload import as_bytes, expected_bytes, land, wrong_size
from tests.transport.scripted import ScriptedEndpoint, push

PULLED = Pulled(Version(1), Step(0), unchanged=False)


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0), (2, 3)])
def test_memory_is_counted_in_bytes_whatever_it_holds(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    view = as_bytes(array.data)
    assert (view.format, view.nbytes, len(view)) == ("B", array.nbytes, array.nbytes)


def test_nothing_is_an_empty_payload() -> None:
    assert as_bytes(None).nbytes == 0


def test_only_pushes_and_loads_carry_bytes() -> None:
    endpoint = ScriptedEndpoint(b"four", frozen=b"frozen")
    assert [expected_bytes(endpoint, kind) for kind in (Push, Load, Inspect)] == [4, 10, 0]


def test_reply_lands_in_the_callers_memory() -> None:
    into = np.zeros(2, np.float32)
    assert land(PULLED, np.array([1, 2], np.float32).data, [into.data]) == (PULLED, None)
    assert into.tolist() == [1, 2]


def test_reply_without_memory_of_the_callers_keeps_its_bytes() -> None:
    assert land(PULLED, memoryview(b"abc"), ()) == (PULLED, memoryview(b"abc"))


def test_reply_without_bytes_touches_nothing() -> None:
    into = bytearray(b"abc")
    assert land(Refused("no"), None, [memoryview(into)]) == (Refused("no"), None)
    assert into == b"abc"


def test_reply_of_another_size_lands_nowhere() -> None:
    into = bytearray(b"abc")
    refused = Refused("the payload of Pulled has 4 bytes, expected 3")
    assert land(PULLED, memoryview(b"ABCD"), [memoryview(into)]) == (refused, None)
    assert into == b"abc"


def test_wrong_size_names_the_message_and_both_numbers() -> None:
    assert wrong_size(type(push(Slot(0))), 3, 4) == "the payload of Push has 3 bytes, expected 4"
