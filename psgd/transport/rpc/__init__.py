"""The plane between hosts: gRPC, with control in protobuf and tensors as raw bytes in chunks."""

from psgd.transport.rpc.client import RpcConnection
from psgd.transport.rpc.peers import RpcPeerLink
from psgd.transport.rpc.retry import Retry
from psgd.transport.rpc.server import RpcServer

__all__ = ["Retry", "RpcConnection", "RpcPeerLink", "RpcServer"]
