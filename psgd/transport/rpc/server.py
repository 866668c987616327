"""A shard's gRPC server."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from psgd.errors import ResourceError
from psgd.transport.base import Endpoint
from psgd.transport.key import JobKey
from psgd.transport.rpc.auth import Doorkeeper
from psgd.transport.rpc.channel import SERVER_OPTIONS, SERVICE
from psgd.transport.rpc.loading import Loading
from psgd.transport.rpc.operations import Operations
from psgd.transport.rpc.service import ShardService
from psgd.transport.staging import Staging

_CALLS_PER_SLOT = 4  # an ask, a pull, a push, and one that broke off and still waits
_CALLS_BESIDE = 16  # driver, evaluator, probes


class RpcServer:
    """Serves a shard to other hosts, from construction to `close`.

    Health (``grpc.health.v1``, of the server and of ``psgd.v1.Shard``) is NOT_SERVING until the shard has answered a
    `Load` with `Loaded`, here or at another door. The health check is the only call that needs no token.

    Args:
        endpoint: the shard.
        key: what every call must show.
        host: the address to listen on; the port is one that is free.
        slots: of the job.
        weights_stand: as the job's mode says, see `psgd.core.modes`: weights are sent without a copy.
        peers: how many other shards may send messages at the same time.
        park_s: how long a call waits for the endpoint's decision before it is answered `Pending`.

    Raises:
        ResourceError: if the host can not be listened on.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key: JobKey,
        host: str,
        slots: int,
        weights_stand: bool = False,
        peers: int = 0,
        park_s: float = 10.0,
    ) -> None:
        calls = _CALLS_PER_SLOT * slots + peers + _CALLS_BESIDE
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="psgd-rpc-server")
        self._health = health.HealthServicer()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.endpoint = Loading(endpoint, partial(self._set_health, health_pb2.HealthCheckResponse.SERVING))
        """The shard, for whoever opens it another door: health tells of weights that come through there, too."""
        uploads = Staging(endpoint.sizes.push, keep=slots + 1)
        copies = Staging(endpoint.sizes.pull, keep=slots + 1)
        self._operations = Operations(self.endpoint, copies, weights_stand)
        self._server = grpc.server(
            self._threads,
            interceptors=[Doorkeeper(key)],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=calls,  # more would queue behind parked ones
        )
        service = ShardService(self.endpoint, self._operations, uploads, slots, park_s)
        self._server.add_generic_rpc_handlers((service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._address = self._listen(host)
        self._server.start()

    @property
    def address(self) -> str:
        """Where the shard is to be reached, ``host:port``."""
        return self._address

    def close(self) -> None:
        """Break off every call and stop; their callers see the shard as unavailable."""
        stopped = self._server.stop(grace=None)
        self._operations.close()
        stopped.wait()
        self._threads.shutdown()

    def _listen(self, host: str) -> str:
        literal = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_insecure_port(f"{literal}:0")
        except RuntimeError as error:
            raise ResourceError(f"can not listen on {host}: {error}; pass an address of this host") from error
        return f"{literal}:{port}"

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in (health.OVERALL_HEALTH, SERVICE):
            self._health.set(service, status)
