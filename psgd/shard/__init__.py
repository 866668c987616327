"""A shard: slices of the weights, their optimizer, and the protocol, behind one apply order."""
