"""The failure policy: who is taken for lost, and whether a worker is replaced."""


def may_replace(failures: int, max_failures: int) -> bool:
    """Whether a run goes on after its ``failures``-th lost worker.

    >>> may_replace(1, max_failures=0), may_replace(3, max_failures=3), may_replace(99, max_failures=-1)
    (False, True, True)
    """
    return max_failures == -1 or failures <= max_failures


class Lease:
    """Signs of life by worker; only a worker that has given one can run out of it.

    Args:
        lease_s: how long a sign lasts, in seconds.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._seen: dict[int, float] = {}

    def renew(self, worker: int, now: float) -> None:
        """The worker is alive."""
        self._seen[worker] = now

    def end(self, worker: int) -> None:
        """Nobody expects a sign from this worker any more, until its next one."""
        self._seen.pop(worker, None)

    def expired(self, now: float) -> list[tuple[int, str]]:
        """Workers without a sign of life for too long, and the reason to give."""
        return [
            (worker, f"no sign of life for {now - seen:.0f} s")
            for worker, seen in sorted(self._seen.items())
            if now - seen > self._lease_s
        ]
