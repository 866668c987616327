"""What error feedback is for: nothing of a gradient is lost for good, and training converges that would not without."""

import pytest
import torch
from torch import Tensor

from psgd.transport.compression.codec import Codec, FeedbackCodec
from psgd.transport.compression.spec import parse_wire


class Wire:
    """One slot's way to the shard; ``feedback`` is what the tests compare."""

    def __init__(self, codec: Codec, elements: int, feedback: bool = True) -> None:
        self.residual = torch.zeros(elements)
        self._codec = codec
        self._feedback = feedback
        self._encoded = torch.zeros(codec.encoded_bytes(elements), dtype=torch.uint8)

    def __call__(self, gradient: Tensor) -> Tensor:
        """The gradient as it arrives."""
        arrived = torch.empty_like(gradient)
        if self._feedback and isinstance(self._codec, FeedbackCodec):
            assert self._codec.encode(gradient, self._encoded, self.residual)
            self._codec.carry(gradient, self._encoded, self.residual)
        else:
            assert self._codec.encode(gradient, self._encoded)
        self._codec.decode(self._encoded, arrived)
        return arrived


@pytest.mark.parametrize("name", ["topk:0.01", "topk:0.2", "onebit"])
@pytest.mark.parametrize("elements", [1, 300, 1000])
def test_what_arrived_and_what_waits_add_up_to_the_gradients(name: str, elements: int) -> None:
    generator = torch.Generator().manual_seed(0)
    wire = Wire(parse_wire(name), elements)
    gradients = torch.randn(50, elements, generator=generator)
    arrived = torch.stack([wire(gradient) for gradient in gradients])
    there = arrived.sum(0, dtype=torch.float64) + wire.residual
    assert torch.allclose(there, gradients.sum(0, dtype=torch.float64), rtol=0, atol=1e-4)


def test_topk_converges_where_slots_contradict_each_other_in_their_largest_values() -> None:
    """Two slots, ½|x − 1|² ± 10·x₀: the one value that each sends is x₀'s, and both cancel."""

    def distance(feedback: bool) -> float:
        wires = [Wire(parse_wire("topk:0.01"), 100, feedback) for _ in range(2)]
        x, pull = torch.zeros(100), torch.zeros(100)
        pull[0] = 10.0
        for _ in range(2500):
            x -= 0.01 * (wires[0](x - 1 + pull) + wires[1](x - 1 - pull)) / 2
        return float((x - 1)[1:].norm())

    assert distance(feedback=False) > 9.9  # where it began
    assert distance(feedback=True) < 0.5


def test_onebit_converges_where_signs_alone_can_not() -> None:
    """Theorem I of Karimireddy et al. 2019: samples whose gradients all have the signs ±(1, −1), so x₀ + x₁ stays."""

    def distance(feedback: bool) -> float:
        wire, x = Wire(parse_wire("onebit"), 2, feedback), torch.tensor([1.0, 1.0])
        samples = torch.tensor([[1.5, -0.5], [-0.5, 1.5]])
        for step in range(1000):
            sample = samples[step % 2]
            x -= 0.05 * wire(2 * (sample @ x) * sample)
        return float(x.norm())

    assert distance(feedback=False) > 1.4  # where it began
    assert distance(feedback=True) < 1e-3


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "int8", "topk:0.1", "onebit"])
def test_least_squares_of_two_slots_is_solved_over_any_wire(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 100, 40, generator=generator)
    solution = torch.randn(40, generator=generator)
    targets = inputs @ solution
    wires, weights = [Wire(parse_wire(name), 40) for _ in range(2)], torch.zeros(40)
    for _ in range(1500):
        arrived = [wire(x.T @ (x @ weights - y) / 100) for wire, x, y in zip(wires, inputs, targets, strict=True)]
        weights -= 0.03 * (arrived[0] + arrived[1]) / 2
    assert (weights - solution).norm() < 1e-2 * solution.norm()
