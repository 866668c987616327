import torch

from psgd.bench.case import StepCase, sgd, stamp_steps

CASE = StepCase(params=25, tensors=4, workers=2, shards=1, warmup=0, steps=1)


def test_the_model_has_equal_tensors_and_leaves_the_remainder_out() -> None:
    model = CASE.make_model()
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(6,)] * 4
    assert list(model.buffers()) == []
    assert CASE.bytes == 24 * 4


def test_all_of_the_model_is_on_its_device() -> None:
    model = CASE.make_model("meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model().device.type == "meta"


def test_the_gradient_is_the_constants() -> None:
    model = CASE.make_model()
    model().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.linspace(-1, 1, 6))


def test_everybody_steps_the_same_fused_optimizer_with_momentum() -> None:
    (group,) = sgd(CASE.make_model().parameters()).param_groups
    assert (group["fused"], group["momentum"]) == (True, 0.9)


def test_warm_up_steps_are_taken_but_not_counted() -> None:
    taken = []
    ends = stamp_steps(2, 3, lambda: taken.append(len(taken)))
    assert taken == [0, 1, 2, 3, 4]
    assert len(ends) == 4
    assert list(ends) == sorted(ends)
