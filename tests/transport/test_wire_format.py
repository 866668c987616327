from dataclasses import replace
from itertools import pairwise

import pytest

from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.errors import ConfigurationError
from psgd.transport.base import Sizes
from psgd.transport.wire_format import JobWire, WireFormat
from tests.jobs import make_job

LAYOUT = Layout(
    [
        TensorSpec("weight", (100,), "float32", Role.PARAMETER),
        TensorSpec("mean", (3,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("fixed", (64,), "float32", Role.FROZEN),
    ]
)
(PART,) = partition(LAYOUT, 1)
WIRES = ["float32", "bfloat16", "float16", "int8", "topk:0.1", "onebit"]

# A slice starts at a multiple of 64: weight, then 12 bytes of mean, then 8 of count.
PUSHES = {
    "float32": 512 + 256 + 256,
    "bfloat16": 256 + 64 + 8,
    "float16": 256 + 64 + 8,
    "int8": 128 + 64 + 8,  # 100 codes and a scale
    "topk:0.1": 128 + 64 + 8,  # ten indices, ten values
    "onebit": 64 + 64 + 8,
}


def job_of(wire: str, shards: int) -> JobWire:
    return JobWire(replace(make_job(shards=shards), layout=LAYOUT, wire=wire))


@pytest.mark.parametrize(("wire", "push"), PUSHES.items())
def test_sizes_are_those_of_what_is_written(wire: str, push: int) -> None:
    pull = PUSHES[wire] if wire in ("bfloat16", "float16") else PUSHES["float32"]
    if wire not in ("bfloat16", "float16", "float32"):
        pull = WireFormat(LAYOUT, PART, "float32").sizes.pull
    assert WireFormat(LAYOUT, PART, wire).sizes == Sizes(push, pull, pull + 256, LAYOUT.bytes)


@pytest.mark.parametrize("wire", WIRES)
def test_only_16_bit_codecs_carry_weights_too(wire: str) -> None:
    format_ = WireFormat(LAYOUT, PART, wire)
    assert format_.pull.identity is (wire not in ("bfloat16", "float16"))
    assert format_.push.identity is (wire == "float32")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_what_goes_to_each_shard_lies_side_by_side(wire: str, shards: int) -> None:
    job = job_of(wire, shards)
    for spans, sizes in (
        (job.pushes, [each.sizes.push for each in job.formats]),
        (job.pulls, [each.sizes.pull for each in job.formats]),
    ):
        assert [span.bytes for span in spans] == sizes
        assert spans[0].start == 0
        assert all(span.start % 256 == 0 for span in spans)
        assert all(0 <= after.start - before.stop < 256 for before, after in pairwise(spans))


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_as_it_is_a_push_lies_as_in_the_flat_space(shards: int) -> None:
    job = job_of("float32", shards)
    assert job.push_is_identity
    assert job.pull_is_identity
    pushed = tuple(part.pushed for part in partition(LAYOUT, shards))
    assert job.pushes == job.pulls == pushed


@pytest.mark.parametrize("wire", WIRES[1:])
def test_whatever_is_encoded_is_not(wire: str) -> None:
    job = job_of(wire, 2)
    assert not job.push_is_identity
    assert job.pull_is_identity is (wire not in ("bfloat16", "float16"))


def test_a_codec_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="did you mean int8"):
        WireFormat(LAYOUT, PART, "int")
