"""How long a caller tries."""

from dataclasses import dataclass

from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Retry:
    """When an attempt has failed, and when the shard is given up.

    Args:
        attempt_s: deadline of an attempt, beside the time its bytes may take.
        patience_s: a shard that has not answered anything for so long is given up.
        first_pause_s: before the second attempt; doubles with every further failure.
        longest_pause_s: as far as it doubles.
        slowest_bytes_per_s: an attempt that moves its bytes slower than that has failed.

    Raises:
        ConfigurationError: if one of them is not positive.

    >>> [Retry(first_pause_s=0.1, longest_pause_s=0.3).pause_s(failures) for failures in (1, 2, 3, 50)]
    [0.1, 0.2, 0.3, 0.3]
    """

    attempt_s: float = 30.0
    patience_s: float = 60.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    slowest_bytes_per_s: float = 4 * 2.0**20

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be > 0, got {getattr(self, name)}")

    def deadline_s(self, size: int) -> float:
        """Seconds that an attempt may take that moves ``size`` bytes."""
        return self.attempt_s + size / self.slowest_bytes_per_s

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.first_pause_s * 2.0 ** min(failures - 1, 63), self.longest_pause_s)
