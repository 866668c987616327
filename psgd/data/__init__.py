"""Data sets, and the sampler that makes every batch a pure function of (seed, step, slot)."""

from psgd.data.batches import Batch, Batches, MapDataset, batches, collate, draw_batch, to_device
from psgd.data.datasets import DATASETS, ArrayDataset, Split, load, load_digits
from psgd.data.idx import read_idx
from psgd.data.sampler import BatchPlan, draw_seed, seed_everything

__all__ = [
    "DATASETS",
    "ArrayDataset",
    "Batch",
    "BatchPlan",
    "Batches",
    "MapDataset",
    "Split",
    "batches",
    "collate",
    "draw_batch",
    "draw_seed",
    "load",
    "load_digits",
    "read_idx",
    "seed_everything",
    "to_device",
]
