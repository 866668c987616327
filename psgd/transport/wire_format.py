"""How a job's tensors are written on the wire: pushes through the codec that it names, weights with its cast."""

from collections.abc import Sequence

from psgd.config import Job
from psgd.core.layout import Layout, Part, Span, aligned
from psgd.transport.base import Sizes
from psgd.transport.compression import PartEncoding, parse_wire
from psgd.transport.compression.cast import Float32, Half


class WireFormat:
    """The encodings of one part.

    A 16-bit codec also carries the weights to the workers; the others leave out so much that weights would not be
    the shard's any more, and weights travel as float32. On the shard both stay float32.

    Args:
        part: what the shard holds.
        wire: the name of the codec.

    Raises:
        ConfigurationError: if there is no such codec, or it can not take a slice of that size.
    """

    def __init__(self, layout: Layout, part: Part, wire: str) -> None:
        codec = parse_wire(wire)
        self.push = PartEncoding(layout, part, codec)
        self.pull = PartEncoding(layout, part, codec if isinstance(codec, Half) else Float32())
        self.sizes = Sizes(
            push=self.push.bytes,
            pull=self.pull.bytes,
            whole=self.pull.bytes + part.frozen.bytes,
            total=part.bytes,
        )


class JobWire:
    """The formats of all shards of a job, and where a worker keeps what it sends and receives.

    Attributes:
        formats: indexed by shard.
        pushes: by shard, the bytes of its push in the memory that a slot sends from.
        pulls: by shard, the bytes of its weights in the memory that a worker receives them in.
    """

    def __init__(self, job: Job) -> None:
        self.formats = tuple(WireFormat(job.layout, part, job.wire) for part in job.parts())
        self.pushes = _side_by_side([each.sizes.push for each in self.formats])
        self.pulls = _side_by_side([each.sizes.pull for each in self.formats])

    @property
    def push_is_identity(self) -> bool:
        """Whether a slot sends its gradient as it is."""
        return all(each.push.identity for each in self.formats)

    @property
    def pull_is_identity(self) -> bool:
        """Whether a worker receives weights as they are."""
        return all(each.pull.identity for each in self.formats)


def _side_by_side(sizes: Sequence[int]) -> tuple[Span, ...]:
    """Spans of these sizes; as they are, each begins where the one before ends, and lies as in the flat space."""
    spans, end = [], 0
    for size in sizes:
        spans.append(Span(end, end + size))
        end = aligned(end + size)
    return tuple(spans)
