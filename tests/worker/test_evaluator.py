from dataclasses import replace

import pytest
import torch

from psgd.config import Loss, Meter
from psgd.core.ids import Boundary
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import InternalError, LostError
from psgd.training.metrics import evaluate, resolve_metrics
from psgd.training.named_metrics import NamedMetric
from psgd.transport.state import read_state
from psgd.worker.evaluator import Evaluated, Evaluator
from tests.jobs import SLOTS, STEPS, NormAndDropout, Parties, first_model, images, make_job, plan_of
from tests.reference import train_reference


def make_parties() -> tuple[Parties, Evaluator]:
    job = make_job(NormAndDropout, workers=2, shards=2, steps=STEPS, evaluate_every=2, evaluation_data=images)
    parties = Parties(job)
    return parties, Evaluator(job, parties.connections)


def expected_after(parties: Parties, steps: int) -> dict[str, float]:
    """What one process measures after so many steps."""
    job, model = parties.job, first_model(NormAndDropout)
    every_slot = dict.fromkeys(range(steps), tuple(range(SLOTS)))
    train_reference(model, images(), job.training.loss, job.optimizer, None, plan_of(job), every_slot)
    measured = evaluate(model, images(), job.training.loss, 512, torch.device("cpu"))
    return {f"test_{name}": value for name, value in measured.scalars.items()}


def test_a_snapshot_is_measured_as_it_was_though_training_has_gone_on() -> None:
    parties, evaluator = make_parties()
    parties.exhaust(0, 1)
    assert parties.boundaries == [(1, 2), (2, 4), (3, 5)]
    for boundary, step in ((2, 4), (3, 5)):
        done = evaluator.evaluate(Boundary(boundary))
        assert done.seconds > 0
        assert replace(done, seconds=0.0) == Evaluated(
            Boundary(boundary), (step, step), expected_after(parties, step), {}, 0.0
        )


def test_the_state_as_it_is_can_be_measured_at_any_time() -> None:
    parties, evaluator = make_parties()
    assert evaluator.evaluate(Boundary(0)).metrics == expected_after(parties, 0)
    parties.exhaust(0, 1)
    assert evaluator.evaluate(Boundary(0)).metrics == expected_after(parties, STEPS)


def test_a_snapshot_that_is_gone_is_an_error() -> None:
    parties, evaluator = make_parties()
    parties.exhaust(0, 1)
    with pytest.raises(LostError, match="shard 0 gave no snapshot of boundary 1: the snapshot of boundary 1 is gone"):
        evaluator.evaluate(Boundary(1))


def test_evaluation_leaves_the_next_batch_and_the_workers_model_alone() -> None:
    parties, evaluator = make_parties()
    undisturbed, _ = make_parties()
    undisturbed.exhaust(0, 1)
    while not all(worker.done for worker in parties.workers):
        for worker in parties.workers:
            worker.advance(timeout_s=0)
            evaluator.evaluate(Boundary(0))
    assert parties.weights_sha256() == undisturbed.weights_sha256()


def test_on_arrival_the_versions_of_all_shards_are_named() -> None:
    job = make_job(mode=Async(), shards=2, steps=1, evaluation_data=images)
    parties = Parties(job)
    parties.exhaust(0)
    assert Evaluator(job, parties.connections).evaluate(Boundary(1)).versions == (SLOTS, SLOTS)


@pytest.mark.parametrize("mode", [Sync(), Async()], ids=str)
def test_weights_that_were_measured_can_be_read_again_after_the_following_ones(mode: Mode) -> None:
    job = make_job(mode=mode, shards=2, steps=2, evaluate_every=1, evaluation_data=images)
    parties = Parties(replace(job, saves_measured=True))
    evaluator = Evaluator(parties.job, parties.connections)
    while parties.figures().version == 0:
        parties.workers[0].advance(timeout_s=0)
    first = evaluator.evaluate(Boundary(1))
    parties.exhaust(0)
    second = evaluator.evaluate(Boundary(2))
    assert second.versions > first.versions
    for boundary, versions in ((Boundary(1), first.versions), (Boundary(2), second.versions)):
        assert read_state(parties.connections, job.layout, job.parts(), boundary)[1] == versions


def test_metrics_that_are_more_than_a_number_come_as_arrays() -> None:
    job = make_job(steps=1, evaluation_data=images)
    job = replace(job, training=replace(job.training, metrics=resolve_metrics(["confusion-matrix", "top3"])))
    done = Evaluator(job, Parties(job).connections).evaluate(Boundary(0))
    assert done.metrics.keys() == {"test_loss", "test_top3"}
    assert done.arrays.keys() == {"test_confusion_matrix"}
    assert sum(map(sum, done.arrays["test_confusion_matrix"])) == len(images())


def test_what_is_done_once_is_done_before_the_first_evaluation_and_draws_nothing() -> None:
    made: list[tuple[int, ...]] = []

    def make_metric(outputs: torch.Tensor, targets: torch.Tensor, loss: Loss) -> Meter:
        made.append(tuple(outputs.shape))
        torch.rand(1)  # a user's code may
        return NamedMetric("accuracy")(outputs, targets, loss)

    job = make_job(NormAndDropout, steps=1, evaluation_data=images)
    job = replace(job, training=replace(job.training, metrics=(make_metric,)))
    parties, random_state = Parties(job), torch.get_rng_state()
    evaluator = Evaluator(job, parties.connections)
    assert made == [(2, 10)]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert evaluator.evaluate(Boundary(0)).metrics == expected_after(parties, 0)


def test_a_job_without_evaluation_data_has_no_evaluator() -> None:
    with pytest.raises(InternalError, match="needs no evaluator"):
        Evaluator(make_job(), [])
