import os

import torch

from psgd.transport.flat import view_bytes
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.shm.offer import Offer, Offers
from psgd.transport.shm.segment import Segment, SegmentPool
from tests.transport.shm.visitor import region


def make(offers: Offers) -> tuple[Offer, doorbell_pb2.Submit]:
    submit = doorbell_pb2.Submit()
    return Offer(submit, offers), submit


def test_a_segment_is_announced_with_the_first_view_of_it() -> None:
    pool = SegmentPool()
    first, second = pool.allocate(100), pool.allocate(200)
    offers = Offers(pool)
    offer, submit = make(offers)
    assert offer.locate(view_bytes(first[10:20])) == region(0, 10, 10)
    assert offer.locate(view_bytes(second)) == region(1, 0, 200)
    assert offer.locate(view_bytes(first[30:70])) == region(0, 30, 40)
    assert list(submit.segments) == [doorbell_pb2.Segment(id=0, size=100), doorbell_pb2.Segment(id=1, size=200)]
    assert len(offer.descriptors) == 2


def test_what_was_made_is_known_and_what_was_not_is_announced_again() -> None:
    pool = SegmentPool()
    memory = pool.allocate(100)
    offers = Offers(pool)
    for _ in range(2):  # never sent
        offer, submit = make(offers)
        offer.locate(view_bytes(memory))
        assert len(submit.segments) == 1
    offer.made()
    known = submit.segments[0].id
    again, later = make(offers)
    assert again.locate(view_bytes(memory[5:])) == region(known, 5, 95)
    assert (list(later.segments), again.descriptors) == ([], [])


def test_every_connection_tells_its_own_shard() -> None:
    pool = SegmentPool()
    memory = pool.allocate(100)
    for offers in (Offers(pool), Offers(pool)):
        offer, submit = make(offers)
        offer.locate(view_bytes(memory))
        offer.made()
        assert len(submit.segments) == 1


def test_foreign_memory_is_not_located() -> None:
    offer, submit = make(Offers(SegmentPool()))
    assert offer.locate(view_bytes(torch.zeros(5, dtype=torch.uint8))) is None
    assert list(submit.segments) == []


def test_what_is_lent_is_for_this_request_alone_and_lives_until_it_is_sent() -> None:
    offers = Offers(SegmentPool())
    offer, submit = make(offers)
    assert offer.lend(Segment.create(30)) == region(0, 0, 30)
    assert offer.lend(Segment.create(40)) == region(1, 0, 40)
    assert list(submit.segments) == [
        doorbell_pb2.Segment(id=0, size=30, once=True),
        doorbell_pb2.Segment(id=1, size=40, once=True),
    ]
    adopted = [
        Segment(descriptor, size) for descriptor, size in zip(map(os.dup, offer.descriptors), (30, 40), strict=True)
    ]
    assert [segment.size for segment in adopted] == [30, 40]
    offer.made()
    assert offers.known == {}
