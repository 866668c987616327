import pytest

from psgd.core.local_steps import LocalSteps
from psgd.errors import ConfigurationError
from psgd.training.length import Pass, check_length


@pytest.mark.parametrize(
    ("epochs", "steps", "message"),
    [
        (None, None, "either epochs or steps must be given, got epochs=None and steps=None"),
        (1, 1, "either epochs or steps must be given, got epochs=1 and steps=1"),
        (0, None, "epochs must be >= 1, got 0"),
    ],
)
def test_a_run_has_one_end(epochs: int | None, steps: int | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        check_length(epochs, steps)


def test_a_pass_has_the_whole_steps_that_its_batches_make() -> None:
    plain, local = (Pass(103, slots=2, batch_size=5, local_steps=each) for each in (None, LocalSteps(4)))
    assert (plain.batches, plain.steps, plain.steps_in(epochs=3)) == (10, 10, 30)
    assert (local.batches, local.steps, local.steps_in(epochs=3)) == (10, 2, 7)  # remainders of passes add up


def test_a_step_that_is_longer_than_a_pass_is_made_of_several() -> None:
    one = Pass(100, slots=2, batch_size=5, local_steps=LocalSteps(20))
    assert (one.steps, one.steps_in(epochs=2)) == (1, 1)
    message = (
        "^local steps must be <= the 10 batches that a slot draws in all epochs, got 20; lower them or batch_size, or "
        "train for more epochs$"
    )
    with pytest.raises(ConfigurationError, match=message):
        one.steps_in(epochs=1)


def test_data_smaller_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got 2 \\* 64 = 128"):
        _ = Pass(100, slots=2, batch_size=64, local_steps=None).batches
