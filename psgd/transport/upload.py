"""Uploads of planes on which nothing is gained by sending a push early."""

from collections.abc import Sequence

from psgd.core.layout import Span
from psgd.core.messages import Push
from psgd.transport.base import Connection, Deliver


class LateUpload:
    """Sends everything when it is finished.

    Args:
        payload: of the push.
    """

    def __init__(self, connection: Connection, payload: memoryview) -> None:
        self._connection = connection
        self._payload = payload

    def ready(self, span: Span) -> None:
        """Nothing leaves before the end."""

    def withdraw(self) -> None:
        """Nothing has left."""

    def finish(self, push: Push, deliver: Deliver, into: Sequence[memoryview] = ()) -> None:
        """Send it all."""
        self._connection.submit(push, deliver, self._payload, into)
