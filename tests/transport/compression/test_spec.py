import re

import pytest

from psgd.errors import ConfigurationError
from psgd.transport.compression.spec import parse_wire


@pytest.mark.parametrize("spec", ["float32", "bfloat16", "float16", "int8", "onebit", "topk:0.01", "topk:1e-05"])
def test_a_codec_is_found_by_its_name(spec: str) -> None:
    assert parse_wire(spec).name == spec


def test_a_fraction_may_be_written_in_other_ways() -> None:
    assert parse_wire("topk:1e-2") == parse_wire("topk:.01") == parse_wire("topk:0.01")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bf16", "onebit or topk:FRACTION, got 'bf16'; did you mean bfloat16?"),
        ("fp16", "did you mean float16?"),
        ("int4", "did you mean int8?"),
        ("1bit", "did you mean onebit?"),
        ("top", "did you mean topk:0.01?"),
        ("INT8:3", "wire must be float32, bfloat16, float16, int8, onebit or topk:FRACTION, got 'INT8:3'"),
        ("", "got ''"),
        ("topk", "such as topk:0.01, got 'topk'"),
        ("topk:", "such as topk:0.01, got 'topk:'"),
        ("topk:many", "such as topk:0.01, got 'topk:many'"),
        ("topk:0", "the fraction of wire topk must be > 0 and <= 1, got 0.0"),
        ("topk:nan", "the fraction of wire topk must be > 0 and <= 1, got nan"),
        ("onebit:2", "got 'onebit:2'; did you mean onebit?"),
    ],
)
def test_anything_else_is_refused_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        parse_wire(spec)
    assert "\n" not in str(caught.value)
