"""An offer: a request with the memory that goes with it, as the shard on the same host is to see it."""

from itertools import count

from psgd.transport.generated.psgd.v1 import doorbell_pb2, shard_pb2
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
    """One request in the making.

    Attributes:
        submit: the message.
        descriptors: to be sent with it.
    """

    def __init__(self, request: shard_pb2.Request, offers: Offers) -> None:
        self.submit = doorbell_pb2.Submit(request=request)
        self.descriptors: list[int] = []
        self._offers = offers
        self._lent: list[Segment] = []  # their descriptors have to live until they are sent

    def locate(self, view: memoryview) -> doorbell_pb2.Region | None:
        """The place of a view in a segment of the pool, which the shard is told about if it has not heard of it."""
        located = self._offers.pool.locate(view)
        if located is None:
            return None
        segment, offset = located
        number = self._offers.known.get(segment)
        if number is None:
            number = self._offers.known[segment] = self._announce(segment, once=False)
        return doorbell_pb2.Region(segment=number, offset=offset, size=view.nbytes)

    def lend(self, segment: Segment) -> doorbell_pb2.Region:
        """All of a segment that the shard has for this request alone."""
        self._lent.append(segment)
        number = self._announce(segment, once=True)
        return doorbell_pb2.Region(segment=number, offset=0, size=segment.size)

    def _announce(self, segment: Segment, *, once: bool) -> int:
        number = next(self._offers.ids)
        self.submit.segments.append(doorbell_pb2.Segment(id=number, size=segment.size, once=once))
        self.descriptors.append(segment.descriptor)
        return number
