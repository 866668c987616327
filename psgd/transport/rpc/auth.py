"""Who may call: whoever shows the job's key, in the metadata of every call."""

from collections.abc import Callable, Iterator
from typing import NoReturn, TypeAlias

import grpc

from psgd.transport.key import JobKey

TOKEN = "psgd-token"
JOB = "psgd-job"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


def metadata_of(key: JobKey) -> tuple[tuple[str, str], ...]:
    """The key as a call shows it."""
    return ((TOKEN, key.token), (JOB, key.job))


class Doorkeeper(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses every call without the job's key, but for the health check, before anything of it is read.

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
        rejection = self._key.judge("a call", shown.get(JOB), shown.get(TOKEN, ""))
        if rejection is None:
            return continuation(handler_call_details)
        if rejection.holds_token:
            return _refusal(grpc.StatusCode.FAILED_PRECONDITION, rejection.line)
        return _refusal(grpc.StatusCode.UNAUTHENTICATED, f"{rejection.line}: pass the job's own in {TOKEN}")


def _refusal(code: grpc.StatusCode, line: str) -> "_Handler":
    def refuse(_frames: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
        context.abort(code, line)

    return grpc.stream_stream_rpc_method_handler(refuse)  # fits every method: it reads and writes nothing
