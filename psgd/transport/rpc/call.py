"""A request under way over gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass

from psgd.core.messages import Request
from psgd.transport.base import Deliver
from psgd.transport.generated.psgd.v1 import shard_pb2


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as it is sent and what becomes of its reply.

    Args:
        message: the request with its operation id.
        into: where the reply's bytes go, see `psgd.transport.base.Connection`.
    """

    request: Request
    message: shard_pb2.Request
    deliver: Deliver
    payload: memoryview
    into: Sequence[memoryview]
