"""An offer: a request with the memory that goes with it, as the shard on the same host is to see it."""

from itertools import count

from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.shm.segment import Segment, SegmentPool


class Offers:
    """What one connection has told its shard about segments.

    Args:
        pool: this process' segments.
    """

    def __init__(self, pool: SegmentPool) -> None:
        self.pool = pool
        self.ids = count()
        self.known: dict[Segment, int] = {}


class Offer:
    """One message in the making.

    Args:
        message: names the segments that are new to the shard.

    Attributes:
        descriptors: to be sent with it.
    """

    def __init__(self, message: doorbell_pb2.Submit | doorbell_pb2.Ready, offers: Offers) -> None:
        self._segments = message.segments
        self.descriptors: list[int] = []
        self._offers = offers
        self._found: dict[Segment, int] = {}
        self._lent: list[Segment] = []  # their descriptors have to live until they are sent

    def locate(self, view: memoryview) -> doorbell_pb2.Region | None:
        """The place of a view in a segment of the pool, which the shard is told about if it has not heard of it."""
        located = self._offers.pool.locate(view)
        if located is None:
            return None
        segment, offset = located
        number = self._offers.known.get(segment, self._found.get(segment))
        if number is None:
            number = self._found[segment] = self._announce(segment, once=False)
        return doorbell_pb2.Region(segment=number, offset=offset, size=view.nbytes)

    def lend(self, segment: Segment) -> doorbell_pb2.Region:
        """All of a segment that the shard has for this request alone."""
        self._lent.append(segment)
        number = self._announce(segment, once=True)
        return doorbell_pb2.Region(segment=number, offset=0, size=segment.size)

    def made(self) -> None:
        """The shard has been sent it, and knows its segments from here on."""
        self._offers.known.update(self._found)

    def _announce(self, segment: Segment, *, once: bool) -> int:
        number = next(self._offers.ids)
        self._segments.append(doorbell_pb2.Segment(id=number, size=segment.size, once=once))
        self.descriptors.append(segment.descriptor)
        return number
