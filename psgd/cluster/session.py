"""The Ray that a run uses: the caller's, the one that RAY_ADDRESS names, or one of its own that ends with the run."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import ray
import torch

from psgd.cluster.places import reserved_for
from psgd.cluster.resources import SHARED_CORES, Need, check
from psgd.errors import ConfigurationError, ResourceError

AUTH_MODE = "RAY_AUTH_MODE"
RELEASED_WITHIN_S = 10.0
PROBED_WITHIN_S = 5.0
OWN = {"psgd/ray": "own"}
"""The label of the node of a Ray that psgd has started for itself."""

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ray_session(need: Need, show_output: bool, shared_cores: int = SHARED_CORES) -> Iterator[Callable[[], str]]:
    """A connected Ray that has room for the job.

    Args:
        show_output: print what user code prints in the actors.
        shared_cores: processes that a Ray of our own lets share one core.

    Yields:
        What gives, in any process of the cluster, the address to listen on: on a Ray of our own the loopback,
        so that nothing is open to the network.

    Raises:
        ConfigurationError: if RAY_ADDRESS names a Ray Client (``ray://``).
        ResourceError: if there is no cluster at RAY_ADDRESS, or it has too little.
    """
    if ray.is_initialized():
        if reserved_for(need) is None:
            _check_cluster(need, "the Ray cluster")
        yield _loopback if _is_own() else ray.util.get_node_ip_address
        return
    address = os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith("ray://"):
        raise ConfigurationError(
            f"RAY_ADDRESS {address} is a Ray Client, whose driver is not in the cluster: submit the program with "
            "`ray job submit`, or run it on a node of the cluster"
        )
    if address is not None and ":" in address:
        _probe(address)
    cores = os.cpu_count() or 1
    if address is None:
        free = {"CPU": float(cores * shared_cores), "GPU": float(torch.cuda.device_count())}
        check(need, free, f"this machine ({cores} cores, each shared by up to {shared_cores} processes)")
    with _connected(address, cores * shared_cores, show_output):
        if address is not None:
            _check_cluster(need, f"the Ray cluster at {address}")
        yield _loopback if address is None else ray.util.get_node_ip_address


def _loopback() -> str:
    return "127.0.0.1"


def _is_own() -> bool:
    """Whether this process, perhaps a trial, belongs to a Ray that psgd has started for itself."""
    labels = cast(dict[str, str], ray.get_runtime_context().get_node_labels())
    return OWN.items() <= labels.items()


def _probe(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes.

    Raises:
        ResourceError: if there is no connection within seconds.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PROBED_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address) from error


def _no_cluster(address: str) -> ResourceError:
    return ResourceError(
        f"RAY_ADDRESS {address}: no Ray cluster answers there; start one with `ray start --head`, or unset RAY_ADDRESS "
        "for one of psgd's own"
    )


def _check_cluster(need: Need, where: str) -> None:
    """Compare with what nobody has reserved; what a run that has just ended reserved comes back a moment later.

    Raises:
        ResourceError: if something falls short.
    """
    check(need, _resources(ray.cluster_resources), f"{where} in all")
    deadline = time.monotonic() + RELEASED_WITHIN_S
    while True:
        try:
            check(need, _resources(ray.available_resources), where)
        except ResourceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _resources(ask: Callable[[], Any]) -> dict[str, float]:
    """Ray's answer, by its own names of resources."""
    return cast(dict[str, float], ask())


@contextmanager
def _connected(address: str | None, cpus: int, show_output: bool) -> Iterator[None]:
    """Connect, or start a Ray of our own; leave neither it nor its traces in the environment behind."""
    auth_mode = os.environ.get(AUTH_MODE)
    if address is None:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=show_output,
            logging_level=logging.ERROR,
            labels=OWN,
            _system_config={"worker_niceness": 0},  # training is what this Ray is for: by default its workers get 15
        )
    else:
        try:
            ray.init(address=address, log_to_driver=show_output, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(address) from error
    try:
        yield
    finally:
        ray.shutdown()
        if auth_mode is None:
            os.environ.pop(AUTH_MODE, None)  # a local Ray sets it for the whole process


@contextmanager
def unwinding() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM unwind the driver, once: a second one does not interrupt the cleaning up.

    (`ray job stop` sends SIGTERM, and kills 3 s later.) Threads other than the main one can not take signals; there
    nothing changes.

    Yields:
        Takes the signals over, again: Ray puts handlers of its own in place when it connects.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def unwind(number: int, _frame: FrameType | None) -> None:
        for each in _ENDINGS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def take_over() -> None:
        for each in _ENDINGS:
            signal.signal(each, unwind)

    before = {each: signal.getsignal(each) for each in _ENDINGS}
    take_over()
    try:
        yield take_over
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
