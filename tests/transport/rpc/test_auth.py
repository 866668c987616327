import pytest

from psgd.errors import ConfigurationError
from psgd.transport.rpc import JobKey


def test_key_does_not_show_its_token() -> None:
    assert repr(JobKey("job-1", "a secret")) == "JobKey(job='job-1')"


@pytest.mark.parametrize("value", ["", "grün", "two\nlines"])
@pytest.mark.parametrize("field", ["job", "token"])
def test_key_that_does_not_fit_into_metadata_is_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be printable ASCII"):
        JobKey(**{"job": "job-1", "token": "a secret", field: value})
