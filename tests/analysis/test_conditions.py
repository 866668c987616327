from typing import Any

import pytest

from psgd.analysis.comparison import ArmRuns, Budget
from psgd.analysis.conditions import check_conditions, rate_of
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

SETTINGS: dict[str, Any] = {
    "workers": 2,
    "shards": 1,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.1, "momentum": 0.9, "nesterov": False},
    "stragglers": [{"slot": 1, "delay": "0", "factor": 3.0}],
    "wire": "float32",
    "options": {"model": "cnn", "data": "mnist", "lr": 0.1, "mode": "sync"},
}


def arm(mode: str, *seeds: int, **changes: Any) -> ArmRuns:
    return arm_in(mode, *(run_of(0.5, seed=seed, settings=SETTINGS | {"mode": mode} | changes) for seed in seeds))


def test_what_all_arms_share_is_read_from_the_logs() -> None:
    found = check_conditions(comparison_of(arm("sync", 0, 1), arm("async", 0, 1)))
    assert found.equal == (
        "Same seeds (0, 1), so the same first weights and the same data order per slot.",
        "Same global batch: 2 slots × 4 = 8 samples.",
        "Same optimizer: SGD with momentum=0.9.",
        "Same learning rate: 0.1.",
        "Same processes: 2 workers, 1 shard.",
        "Same stragglers: slot 1 3× slower.",
        "All other settings are the same.",
    )
    assert found.differing == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 8}, "The global batch differs: sync 2 slots × 4 = 8 samples; async 2 slots × 8 = 16 samples."),
        ({"workers": 1}, "The processes differ: sync 2 workers, 1 shard; async 1 worker, 1 shard."),
        ({"stragglers": []}, "The stragglers differ: sync slot 1 3× slower; async none."),
        (
            {"stragglers": [{"slot": None, "delay": "20ms", "factor": 1.0}]},
            "The stragglers differ: sync slot 1 3× slower; async every slot 20ms later.",
        ),
        (
            {"stragglers": [{"slot": 0, "delay": "exp:50ms", "factor": 1.0}]},
            "The stragglers differ: sync slot 1 3× slower; async slot 0 exp:50ms later.",
        ),
        ({"optimizer": "Adam"}, "The optimizer differs: sync SGD with momentum=0.9; async Adam with momentum=0.9."),
        ({"options": SETTINGS["options"] | {"lr": 0.2}}, "The learning rate differs: sync 0.1; async 0.2."),
        ({"options": SETTINGS["options"] | {"model": "mlp"}}, "model differs: sync cnn; async mlp."),
        ({"options": SETTINGS["options"] | {"l2": 0.1}}, "l2 differs: sync null; async 0.1."),
        ({"wire": "bf16"}, "wire differs: sync float32; async bf16."),
        ({"steps": 8}, "A slot's mini-batches differ: sync 4; async 8."),
    ],
)
def test_what_differs_names_the_arms_and_what_each_has(changes: dict[str, Any], words: str) -> None:
    found = check_conditions(comparison_of(arm("sync", 0), arm("async", 0, **changes)))
    assert found.differing == (words,)
    assert "All other settings are the same." not in found.equal or "differ" in words


def test_lengths_differ_where_something_else_ends_the_runs() -> None:
    arms = arm("sync", 0), arm("async", 0, steps=8)
    assert check_conditions(comparison_of(*arms, budget=Budget("seconds", 10.0))).differing == ()
    assert check_conditions(comparison_of(*arms, budget=Budget("various"))).differing != ()


def test_a_seed_that_an_arm_has_not_is_a_difference() -> None:
    found = check_conditions(comparison_of(arm("sync", 0, 1), arm_in("async", arm("async", 0).rates[0].runs[0], None)))
    assert found.differing == ("seeds differ: sync 0, 1; async 0.",)


def test_local_steps_of_one_budget_are_as_long_as_single_ones() -> None:
    local = arm("sync", 0, local_steps={"steps": 2, "lr": 0.7, "momentum": 0.9}, steps=2)
    found = check_conditions(comparison_of(arm("async", 0), ArmRuns("sgd", "sync/local=2", local.rates, local.about)))
    assert found.differing == ()
    assert "Same global batch: 2 slots × 4 = 8 samples, of which local steps make several a step." in found.equal


def test_what_is_compared_is_no_inequality() -> None:
    sgd, adam = arm_of("sgd", "sync", {0.1: (0.5,)}), arm_of("adam", "sync", {0.1: (0.5,)})
    adam.rates[0].complete[0].settings["optimizer"] = "Adam"
    found = check_conditions(comparison_of(sgd, adam))
    assert found.differing == ()
    assert not any("optimizer" in words or "learning rate" in words for words in found.equal)


def test_logs_that_name_no_model_are_not_trusted_blindly() -> None:
    found = check_conditions(comparison_of(arm_of("sgd", "sync", {0.1: (0.5,)}), arm_of("sgd", "async", {0.1: (0.5,)})))
    assert found.equal[0] == (
        "Same seeds (0), so the same first weights and the same data order per slot (if the programs that made them "
        "had the same model and data: the logs do not name them)."
    )


def test_without_a_complete_run_nothing_is_said() -> None:
    found = check_conditions(comparison_of(arm_in("sync", None), arm_in("async", None)))
    assert (found.equal, found.differing) == ((), ())


def test_the_learning_rate_is_that_of_the_options_or_of_the_optimizer() -> None:
    assert rate_of({"options": {"lr": 0.5}, "optimizer_args": {"lr": 0.1}}) == 0.5
    assert rate_of({"optimizer_args": {"lr": 0.1}}) == 0.1
    assert rate_of({}) is None


def test_arms_that_have_the_same_of_what_differs_share_a_word() -> None:
    found = check_conditions(comparison_of(arm("sync", 0), arm("async", 0, wire="bf16"), arm("async:4", 0)))
    assert found.differing == ("wire differs: sync, async:4: float32; async bf16.",)


def test_what_local_steps_leave_no_choice_in_is_no_inequality() -> None:
    local = arm("sync", 0, local_steps={"steps": 2, "lr": 0.7, "momentum": 0.9}, steps=2, overlap=False)
    local = ArmRuns("sgd", "sync/local=2", local.rates, local.about)
    plain = arm("sync", 0, overlap=True)
    assert check_conditions(comparison_of(plain, local)).differing == ()
    assert check_conditions(comparison_of(plain, local, arm("async", 0, overlap=False))).differing == (
        "overlap differs: sync true; async false.",
    )


def test_where_nothing_was_trained_nothing_is_said_of_weights_and_rates() -> None:
    timed: dict[str, Any] = {"gradients": "none", "optimizer": "none", "slots": 1}
    found = check_conditions(comparison_of(arm("sync", 0, **timed), arm("async", 0, **timed)))
    assert found.equal[:3] == (
        "Same seeds (0).",
        "Same global batch: 1 slot × 4 = 4 samples.",
        "Same processes: 2 workers, 1 shard.",
    )


def test_loops_of_ones_own_need_no_batch_size() -> None:
    own = {"own_loop": True, "batch_size": None, "steps": 4}
    found = check_conditions(comparison_of(arm("sync", 0, **own), arm("async", 0, **own)))
    assert "Same global batch: 2 slots with batches of any size." in found.equal
    assert found.differing == ()
