"""The protocol: no torch, ray, grpc, clock, thread or randomness. `handle(event, now) -> effects`."""
