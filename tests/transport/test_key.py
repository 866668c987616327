import pytest

from psgd.errors import ConfigurationError
from psgd.transport.key import JobKey, Rejection

KEY = JobKey("job-1", "a secret")


def test_key_does_not_show_its_token() -> None:
    assert repr(JobKey("job-1", "a secret")) == "JobKey(job='job-1')"


@pytest.mark.parametrize("value", ["", "grün", "two\nlines"])
@pytest.mark.parametrize("field", ["job", "token"])
def test_key_that_does_not_fit_into_metadata_is_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be printable ASCII"):
        JobKey(**{"job": "job-1", "token": "a secret", field: value})


@pytest.mark.parametrize("token", ["a secret", b"a secret"])
def test_whoever_shows_token_and_job_is_let_in(token: str | bytes) -> None:
    assert KEY.judge("a call", "job-1", token) is None


@pytest.mark.parametrize("token", ["", "a secreT", "a secre", "a secret ", "grün", b"", b"a secreT", b"\xff"])
@pytest.mark.parametrize("job", ["job-1", "job-2", None])
def test_without_the_token_nothing_else_is_looked_at(token: str | bytes, job: str | None) -> None:
    assert KEY.judge("a call", job, token) == Rejection("a call without the token of job job-1", holds_token=False)


@pytest.mark.parametrize("job", ["job-2", "", None])
def test_a_key_of_another_job_is_told_apart_from_a_wrong_one(job: str | None) -> None:
    line = f"a hello of job {job!r} at a shard of job 'job-1'"
    assert KEY.judge("a hello", job, "a secret") == Rejection(line, holds_token=True)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(*both: bytes) -> bool:
        compared.append(both)
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert KEY.judge("a call", "job-1", "a secret") is not None
    assert compared == [(b"a secret", b"a secret")]
