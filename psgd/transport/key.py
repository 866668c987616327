"""The job's key: what everybody shows who rings or calls at a shard, and who is let in."""

import hmac
from dataclasses import dataclass, field

from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why somebody is not let in.

    Args:
        line: says so, without a secret.
        holds_token: the token is the job's; only the job named beside it is another one.
    """

    line: str
    holds_token: bool


@dataclass(frozen=True, slots=True)
class JobKey:
    """What a party must show to a shard.

    Args:
        job: the job's id.
        token: the job's secret, drawn at random.

    Raises:
        ConfigurationError: if one of them is empty or not printable ASCII, as metadata has to be.
    """

    job: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (("job", self.job), ("token", self.token)):
            if not (value and value.isascii() and value.isprintable()):
                raise ConfigurationError(f"{name} must be printable ASCII, at least one character")

    def judge(self, what: str, job: str | bytes | None, token: str | bytes) -> Rejection | None:
        """Compare what is shown with this key, the token in constant time.

        Args:
            what: is shown, such as ``a call``.

        Returns:
            None: let it in.

        Example:
            >>> JobKey("job-1", "a secret").judge("a call", "job-1", "a guess").line
            'a call without the token of job job-1'
        """
        if not hmac.compare_digest(token if isinstance(token, bytes) else token.encode(), self.token.encode()):
            return Rejection(f"{what} without the token of job {self.job}", holds_token=False)
        if job != self.job:
            return Rejection(f"{what} of job {job!r} at a shard of job {self.job!r}", holds_token=True)
        return None
