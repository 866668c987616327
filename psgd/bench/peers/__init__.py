"""Whom psgd is measured beside: each module has ``run(case) -> StepTimes``, in fresh processes.

``ddp``, ``torch_rpc`` and ``ray_server`` are other people's ways to train, written as their documentation recommends;
``trainer`` is psgd itself; ``floor`` and ``raw_grpc`` are what the machine could do at best.
"""

PEERS = {
    "ddp": "psgd.bench.peers.ddp",
    "rpc": "psgd.bench.peers.torch_rpc",
    "ray": "psgd.bench.peers.ray_server",
}
"""Those that can be chosen, and their modules; each imports what its peer needs, and says in ``AVAILABLE`` whether
this build of torch has it."""
