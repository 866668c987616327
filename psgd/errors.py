"""The exception tree: the type says whose fault it is.

PsgdError
├── ConfigurationError      the user's input: a field, a value, a combination
│   ├── DataError           a data file that is missing, truncated or of another kind
│   └── ResourceError       the cluster has less than the run needs
├── PeerError               a peer's message: malformed, oversized, unauthenticated, of another job
├── LostError               a process or a machine went away
├── DivergedError           the training itself: NaN or Inf in a gradient, where that is to end the run
├── RunEnded                the run is over, and an own loop asked for another step
└── InternalError           a bug of ours
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PsgdError(Exception):
    """The root of every error that psgd raises on purpose."""


class ConfigurationError(PsgdError):
    """The user's configuration can not be run; the message names the field, the rule and the value."""


class DataError(ConfigurationError):
    """A data file is missing, truncated or of another kind; the message names the file and what was expected."""


class ResourceError(ConfigurationError):
    """The cluster has less than the run needs; the message says need, have and remedy."""


class PeerError(PsgdError):
    """A peer's message is malformed, oversized, unauthenticated or belongs to another job."""


class LostError(PsgdError):
    """A process or a machine that the run needs went away."""


class DivergedError(PsgdError):
    """A gradient held NaN or Inf, and the run is to fail of that; the message names the step and the slots."""


class RunEnded(PsgdError):  # noqa: N818  # like StopIteration: an end, not an error
    """The budget of the run is used up: an own loop that asks for another step may simply end."""


class InternalError(PsgdError):
    """A bug of psgd: something that the protocol rules out has happened."""


def blame(error: Exception) -> str:
    """An error of the user's code on one line: its type, its message, and the last line of code that is the user's."""
    ours = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(ours)
    ]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Within it the user's code is tried out: what it raises ends in one line.

    Raises:
        ConfigurationError: says what has failed, and why; one that is raised within passes as it is.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind
        raise ConfigurationError(f"{what}: {blame(error)}") from error
