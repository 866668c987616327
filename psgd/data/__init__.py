"""Data sets, and the sampler that makes every batch a pure function of (seed, step, slot)."""
