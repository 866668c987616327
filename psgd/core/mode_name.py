"""How a mode is written, with all that belongs to it: on the command line, in tables, for folders."""

from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Mode


def mode_name(mode: Mode, correction: str | None = None, local_steps: LocalSteps | None = None) -> str:
    """A mode as it is written on the command line, with what it does otherwise than usual each behind a slash.

    Args:
        correction: in words, as `psgd.core.corrections` writes them.

    Example:
        >>> from psgd.core.modes import Async, Sync
        >>> [mode_name(mode) for mode in (Sync(), Sync(backups=1), Async(), Async(staleness=4))]
        ['sync', 'sync+1', 'async', 'async:4']
        >>> mode_name(Async(4, gather=5), "lag-lr"), mode_name(Sync(), local_steps=LocalSteps(8))
        ('async:4/softsync=5/lag-lr', 'sync/local=8')
    """
    if isinstance(mode, Async):
        words = ["async" if mode.staleness is None else f"async:{mode.staleness}"]
        words += [f"softsync={mode.gather}"] if mode.gather > 1 else []
    else:
        words = ["sync" if mode.backups == 0 else f"sync+{mode.backups}"]
    words += [] if correction is None else [correction]
    words += [] if local_steps is None else [f"local={local_steps}"]
    return "/".join(words)
