"""What the final weights of a run reach on the training set; the run itself measures the test set alone."""

import json
import math
from pathlib import Path
from typing import cast

import torch

from psgd.analysis.run_figures import TRAIN_METRICS_NAME
from psgd.config import Job
from psgd.data.batches import MapDataset
from psgd.result import WEIGHTS_NAME
from psgd.training.metrics import evaluate
from psgd.training.warm_start import apply_weights, load_weights
from psgd.worker.evaluator import EVALUATION_BATCH


def is_measured(folder: Path) -> bool:
    """Whether that has been done: once is enough."""
    return (folder / TRAIN_METRICS_NAME).exists()


def measure_training_set(job: Job, folder: Path) -> None:
    """Measure the saved weights of a run, and write it beside its log.

    A run whose weights could not be saved, or that has no data of its own, is left without.

    Raises:
        DataError: if the file of the weights is damaged.
    """
    weights = folder / WEIGHTS_NAME
    if not weights.exists() or job.data is None:
        return
    device = torch.device("cuda" if job.training.use_gpu and torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        model = job.model()
    apply_weights(model, load_weights(weights))
    training, data = job.training, cast(MapDataset, job.data())
    measured = evaluate(model.to(device), data, training.loss, EVALUATION_BATCH, device, training.metrics)
    known = {name: value if math.isfinite(value) else None for name, value in measured.scalars.items()}
    (folder / TRAIN_METRICS_NAME).write_text(json.dumps(known) + "\n", encoding="utf-8")
