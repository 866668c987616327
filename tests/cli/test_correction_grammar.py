import pytest

from psgd.cli.correction_grammar import parse_correction
from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "correction"),
    [
        ("lag-lr", LagRate()),
        ("dc", DelayCompensation()),
        ("dc=1e-3", DelayCompensation(0.001)),
        ("dca", DelayCompensation(adaptive=True)),
        ("dca=.5", DelayCompensation(0.5, adaptive=True)),
        ("dca=2:0.9", DelayCompensation(2.0, adaptive=True, decay=0.9)),
        ("gap", GapAware()),
        ("gap=0.9", GapAware(0.9)),
    ],
)
def test_a_correction_is_read_and_written_alike(text: str, correction: Correction) -> None:
    assert parse_correction(text) == correction
    assert str(parse_correction(str(correction))) == str(correction)


@pytest.mark.parametrize("text", ["", "lag", "dc:1", "dc=", "dc=x", "dc=1:2", "dca=1:2:3", "gap=inf", "DC", "dc=1,5"])
def test_another_word_is_told_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_correction(text)
    assert str(caught.value) == (
        f"correction must be lag-lr, dc[=LAMBDA], dca[=LAMBDA0[:M]] or gap[=BETA], got {text!r}"
    )


def test_a_number_out_of_range_is_told_what_it_may_be() -> None:
    with pytest.raises(ConfigurationError, match=r"^delay compensation decay must be in \[0, 1\), got 1.0$"):
        parse_correction("dca=2:1")
