import pytest

from psgd.coordinator.failure import Lease, may_replace


@pytest.mark.parametrize(
    ("failures", "max_failures", "expected"),
    [(1, 0, False), (1, 1, True), (2, 1, False), (3, 3, True), (4, 3, False), (1, -1, True), (10**6, -1, True)],
)
def test_so_many_workers_are_replaced(failures: int, max_failures: int, expected: bool) -> None:
    assert may_replace(failures, max_failures) is expected


def test_a_sign_of_life_lasts_as_long_as_the_lease() -> None:
    lease = Lease(lease_s=10)
    lease.renew(1, now=100.0)
    assert lease.expired(now=110.0) == []
    assert lease.expired(now=110.5) == [(1, "no sign of life for 10 s")]
    lease.renew(1, now=111.0)
    assert lease.expired(now=121.0) == []


def test_who_has_given_no_sign_is_not_missed() -> None:
    assert Lease(lease_s=1).expired(now=1e9) == []


def test_who_has_ended_is_not_missed_until_the_next_sign() -> None:
    lease = Lease(lease_s=10)
    lease.renew(0, now=0.0)
    lease.end(0)
    lease.end(5)  # never heard of
    assert lease.expired(now=100.0) == []
    lease.renew(0, now=100.0)
    assert lease.expired(now=111.0) == [(0, "no sign of life for 11 s")]


def test_the_missing_are_named_in_order() -> None:
    lease = Lease(lease_s=1)
    for worker in (2, 0, 1):
        lease.renew(worker, now=float(worker))
    assert lease.expired(now=2.5) == [(0, "no sign of life for 2 s"), (1, "no sign of life for 2 s")]
