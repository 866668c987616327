"""Who may call: whoever holds the job's token. Compared in constant time, on every call."""

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import grpc

from psgd.errors import ConfigurationError

TOKEN = "psgd-token"
JOB = "psgd-job"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class JobKey:
    """What a call to a shard must show.

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

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As gRPC sends it."""
        return ((TOKEN, self.token), (JOB, self.job))


class Doorkeeper(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses every call without the job's token, but for the health check, before anything of it is read.

    Args:
        key: what a call must show.
    """

    def __init__(self, key: JobKey) -> None:
        self._key = key

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "_Handler | None"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Let the call pass, or replace its handler by a refusal."""
        if handler_call_details.method == _HEALTH_CHECK:
            return continuation(handler_call_details)
        shown = dict(handler_call_details.invocation_metadata)
        if not hmac.compare_digest(_bytes(shown.get(TOKEN, "")), self._key.token.encode()):
            line = f"a call without the token of job {self._key.job}: pass the job's own in {TOKEN}"
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, line)
        if shown.get(JOB) != self._key.job:
            line = f"a call of job {shown.get(JOB)!r} at a shard of job {self._key.job!r}"
            return _refusal(grpc.StatusCode.FAILED_PRECONDITION, line)
        return continuation(handler_call_details)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _refusal(code: grpc.StatusCode, line: str) -> "_Handler":
    def refuse(_frames: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
        context.abort(code, line)

    return grpc.stream_stream_rpc_method_handler(refuse)  # fits every method: it reads and writes nothing
