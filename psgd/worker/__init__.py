"""Workers: they pull, compute and push; the loops, `DistributedOptimizer`, and what both stand on."""
