import signal
import socket
from contextlib import AbstractContextManager

import pytest

from psgd.cluster.resources import Need
from psgd.cluster.session import ray_session, unwinding
from psgd.config import Placement
from psgd.errors import ConfigurationError, ResourceError

LITTLE = Need(1, 1, Placement())


def test_ray_client_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigurationError, match=r"ray://head:10001 is a Ray Client.*ray job submit"), session():
        pass


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, so that nobody else gets the port; not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ResourceError, match=f"RAY_ADDRESS {address}: no Ray cluster answers there"), session():
            pass


def test_too_many_processes_for_this_machine_are_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ResourceError, match="the run needs 1001 CPUs"), ray_session(Need(1000, 1, Placement()), False):
        pass


@pytest.mark.parametrize(("told", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_unwinds_once_and_a_second_one_does_not_interrupt(
    told: signal.Signals, error: type[BaseException]
) -> None:
    before = signal.getsignal(told)
    cleaned = []

    def work() -> None:
        with unwinding():
            try:
                signal.raise_signal(told)
            finally:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(error):
        work()
    assert cleaned == [True]
    assert signal.getsignal(told) is before


def session() -> AbstractContextManager[object]:
    return ray_session(LITTLE, show_output=False)
