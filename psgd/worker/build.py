"""From a job to a worker or an evaluator that is ready to run, on connections of any plane."""

import queue
import time
from collections.abc import Callable
from typing import cast

import torch

from psgd.config import Job
from psgd.core.membership import Membership
from psgd.data.batches import MapDataset
from psgd.errors import InternalError, ResourceError
from psgd.runlog import Iteration
from psgd.transport.attachment import Attachment
from psgd.transport.flat import tensors_of
from psgd.worker.compute import Supervised
from psgd.worker.local_steps import LocalTraining, held_apart
from psgd.worker.loop import Pace, Worker, at_once
from psgd.worker.making import ComputeGradient, GradientMaker
from psgd.worker.record import Chronicle
from psgd.worker.replica import Replica
from psgd.worker.runner import Inbox, SlotRunner, Weights


def device_for(use_gpu: bool) -> torch.device:
    """The device that this process computes on; Ray shows a worker only its own GPU.

    Raises:
        ResourceError: if there is no GPU to use.
    """
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError(
            f"use_gpu needs a GPU that torch can use, torch {torch.__version__} finds none in the worker's process: "
            "give it a GPU and a CUDA build of torch, or leave use_gpu off"
        )
    return torch.device("cuda", 0)


def build_model(job: Job, device: torch.device) -> torch.nn.Module:
    """The job's model, with what its constructor draws at random as in every other process of the job."""
    with torch.random.fork_rng():
        torch.manual_seed(job.training.seed)
        return job.model().to(device)


def build_worker(
    job: Job,
    number: int,
    membership: Membership,
    attachment: Attachment,
    observe: Callable[[Iteration], None],
    pace: Pace = at_once,
    clock: Callable[[], float] = time.perf_counter,
) -> Worker[SlotRunner]:
    """The built-in loop for one worker's slots.

    Args:
        observe: told about every finished iteration.
        pace: when a slot goes on behind its computation.
        clock: seconds, monotonic, for the records.
    """
    if job.data is None:
        raise InternalError("a job without data has an own loop")
    device = device_for(job.training.use_gpu)
    model = build_model(job, device).train()
    tensors = tensors_of(model)
    pulled = tensors if job.rules.local_steps is None else held_apart(tensors)
    replica = Replica(pulled, job.layout, device, attachment.weights, attachment.find_written)
    weights = Weights(attachment, job.parts())
    inbox: Inbox = queue.SimpleQueue()
    runners = [
        SlotRunner(
            job, slot, membership.incarnations[slot], attachment, weights, inbox, device, Chronicle(number, slot, clock)
        )
        for slot in membership.slots_of(number)
    ]
    dataset = cast(MapDataset, job.data())
    supervised = Supervised(model, job.training, dataset, job.rules.slots, device)
    compute = in_one_step(supervised) if pulled is tensors else LocalTraining(job, tensors, pulled, supervised)
    make = GradientMaker(replica, compute, job.training.overlap)
    return Worker(number, job.rules.mode, runners, make, inbox, observe, pace)


def in_one_step(supervised: Supervised) -> ComputeGradient:
    """One mini-batch an iteration; its gradient is the same at any learning rate."""
    return lambda order, slot, before_last: supervised(order.step, slot, before_last)
