"""The planes that carry messages and tensor bytes between slots and shards."""
