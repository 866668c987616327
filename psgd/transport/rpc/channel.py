"""What both ends of a gRPC channel agree on."""

from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.rpc.frames import CHUNK

SERVICE = shard_pb2.DESCRIPTOR.services_by_name["Shard"].full_name

_SLACK = 64 * 2**10  # the final message of a push names the parameters without a gradient
_MESSAGE = CHUNK + _SLACK
_METADATA = 8 * 2**10

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MESSAGE),
    ("grpc.max_metadata_size", _METADATA),
    ("grpc.absolute_max_metadata_size", _METADATA),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # a parked caller pings twice as rarely
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MESSAGE),
    ("grpc.max_metadata_size", _METADATA),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # no limit: a parked request sends nothing else
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # gRPC's own two minutes would outlast our patience
    ("grpc.enable_retries", 0),  # only who knows the operation may send it again
    ("grpc.enable_http_proxy", 0),  # tensors stay inside the cluster, whatever http_proxy says
    ("grpc.use_local_subchannel_pool", 1),  # or all channels to a shard would share one TCP connection
)
