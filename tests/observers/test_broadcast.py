import pytest

from psgd.observers import Broadcast
from psgd.runlog import Record
from tests.records import ITERATION


class Listener:
    def __init__(self, name: str, heard: list[str], broken: bool = False) -> None:
        self.name = name
        self.heard = heard
        self.broken = broken

    def __call__(self, record: Record) -> None:
        self.heard.append(f"{self.name} {type(record).__name__}")

    def close(self) -> None:
        self.heard.append(f"{self.name} closed")
        if self.broken:
            raise RuntimeError(self.name)


def test_everybody_hears_everything_in_order() -> None:
    heard: list[str] = []
    with Broadcast([Listener("a", heard), Listener("b", heard)]) as observe:
        observe(ITERATION)
    assert heard == ["a Iteration", "b Iteration", "a closed", "b closed"]


def test_everybody_is_closed_whatever_happens() -> None:
    heard: list[str] = []
    with (
        pytest.raises(RuntimeError, match=r"^a$"),
        Broadcast([Listener("a", heard, broken=True), Listener("b", heard)]),
    ):
        raise KeyboardInterrupt
    assert heard == ["a closed", "b closed"]
