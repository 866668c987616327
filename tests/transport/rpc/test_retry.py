import pytest

from psgd.errors import ConfigurationError
from psgd.transport.rpc import Retry


def test_pause_doubles_up_to_the_longest() -> None:
    retry = Retry(first_pause_s=0.05, longest_pause_s=2.0)
    assert [retry.pause_s(failures) for failures in range(1, 9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert retry.pause_s(10**6) == 2.0


def test_deadline_grows_with_the_bytes() -> None:
    retry = Retry(attempt_s=10.0, slowest_bytes_per_s=100.0)
    assert [retry.deadline_s(size) for size in (0, 500)] == [10.0, 15.0]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("field", Retry.__dataclass_fields__)
def test_every_number_is_positive(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be > 0, got {value}"):
        Retry(**{field: value})
