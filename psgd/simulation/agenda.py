"""Virtual time: what is to happen, in its order."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

Act = Callable[[], None]


class Agenda:
    """A clock that stands still while things happen, and jumps to the next of them.

    Things of the same moment happen in the order in which they were put down, but for those that happen at once: these
    do before whatever else is left of the moment.

    Attributes:
        now: seconds since the beginning.

    Example:
        >>> agenda, heard = Agenda(), []
        >>> agenda.after(2.0, lambda: heard.append(agenda.now))
        >>> agenda.soon(lambda: heard.append(agenda.now))
        >>> while agenda.advance():
        ...     pass
        >>> heard
        [0.0, 2.0]
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._soon: deque[Act] = deque()
        self._later: list[tuple[float, int, Act]] = []
        self._order = count()

    def time(self) -> float:
        """Seconds since the beginning, for those who want a function."""
        return self.now

    def soon(self, act: Act) -> None:
        """At once: behind what else is to happen at once, before what was put down for this moment."""
        self._soon.append(act)

    def after(self, seconds: float, act: Act) -> None:
        """So many seconds from now; at once if they are none."""
        if seconds <= 0:
            self._soon.append(act)
        else:
            heapq.heappush(self._later, (self.now + seconds, next(self._order), act))

    def at(self, moment: float, act: Act) -> None:
        """At a moment, in seconds since the beginning; at once if it has passed."""
        if moment <= self.now:
            self._soon.append(act)
        else:
            heapq.heappush(self._later, (moment, next(self._order), act))

    def advance(self) -> bool:
        """Let the next thing happen.

        Returns:
            Whether there was any.
        """
        if self._soon:
            self._soon.popleft()()
            return True
        if not self._later:
            return False
        self.now, _, act = heapq.heappop(self._later)
        act()
        return True
