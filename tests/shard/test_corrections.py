"""The formulas of the papers, element by element, against float64 arithmetic written out with numpy."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from psgd.core.corrections import DelayCompensation, GapAware, LagRate
from psgd.core.ids import Version
from psgd.shard.corrections import Corrector, DelayCompensator, GapPenalty, PastWeights, corrector_of

Doubles = npt.NDArray[np.float64]
NOBODY: tuple[int, ...] = ()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (50,)), generator=torch.Generator().manual_seed(seed))


def doubles(values: Tensor) -> Doubles:
    array: Doubles = values.numpy().astype(np.float64)
    return array


def corrected(corrector: Corrector, grad: Tensor, now: Tensor, then: Tensor) -> Tensor:
    """One parameter's gradient, seen and corrected."""
    made = grad.clone()
    corrector.see([made], NOBODY)
    assert torch.equal(made, grad), "seeing changes nothing"
    corrector.correct([made], [now], [then], NOBODY)
    return made


def close(found: Tensor, expected: Doubles) -> None:
    np.testing.assert_allclose(doubles(found), expected, rtol=2e-6, atol=1e-6)


# ------------------------------------------------------------------ which one


@pytest.mark.parametrize("correction", [None, LagRate(), DelayCompensation(0.0), DelayCompensation(0.0, adaptive=True)])
def test_what_never_changes_a_gradient_needs_nothing(correction: LagRate | DelayCompensation | None) -> None:
    assert corrector_of(correction) is None


def test_each_correction_has_its_arithmetic() -> None:
    assert isinstance(corrector_of(DelayCompensation()), DelayCompensator)
    assert isinstance(corrector_of(GapAware()), GapPenalty)


# ------------------------------------------------------------------ copies of weights


def test_copies_are_of_the_versions_that_are_asked_for() -> None:
    weights = torch.zeros(3)
    past = PastWeights(weights)
    for now, versions in [(0, (0,)), (1, (0, 1)), (2, (1, 2)), (3, (1,))]:
        past.hold(Version(now), [Version(version) for version in versions])
        weights += 1
    assert past.of(Version(1)).tolist() == [1.0, 1.0, 1.0]
    for gone in (0, 2, 3):
        with pytest.raises(KeyError):
            past.of(Version(gone))


def test_a_copy_is_made_once_and_memory_is_used_again() -> None:
    weights = torch.zeros(3)
    past = PastWeights(weights)
    past.hold(Version(0), [Version(0)])
    first = past.of(Version(0))
    past.hold(Version(0), [Version(0)])
    assert past.of(Version(0)) is first
    past.hold(Version(1), [Version(1)])
    assert past.of(Version(1)) is first


# ------------------------------------------------------------------ delay compensation


def test_delay_compensation_adds_lambda_g_g_times_the_way_of_the_weights() -> None:
    g, now, then = drawn(1), drawn(2), drawn(3)
    found = corrected(DelayCompensator(DelayCompensation(0.3)), g, now, then)
    g64 = doubles(g)
    close(found, g64 + 0.3 * g64 * g64 * (doubles(now) - doubles(then)))


def test_by_hand() -> None:
    g, now, then = torch.tensor([2.0, -2.0, 0.0]), torch.tensor([1.5, 1.0, 9.0]), torch.tensor([1.0, 1.5, 1.0])
    assert corrected(DelayCompensator(DelayCompensation(0.25)), g, now, then).tolist() == [2.5, -2.5, 0.0]


def test_adaptive_lambda_follows_the_mean_square_of_all_gradients() -> None:
    corrector = DelayCompensator(DelayCompensation(2.0, adaptive=True, decay=0.9))
    mean_square = np.zeros(50)
    for seed in range(5):
        g, now, then = drawn(seed), drawn(seed + 10), drawn(seed + 20)
        g64 = doubles(g)
        mean_square = 0.9 * mean_square + 0.1 * g64**2
        if seed == 2:  # without lag: it is seen, and that is all
            corrector.see([g], NOBODY)
            continue
        expected = g64 + 2.0 / np.sqrt(mean_square + 1e-7) * g64 * g64 * (doubles(now) - doubles(then))
        close(corrected(corrector, g, now, then), expected)


def test_weights_that_have_not_moved_leave_the_gradient_even_where_its_square_overflows() -> None:
    g = torch.tensor([1e30, -0.0, 3.0])
    found = corrected(DelayCompensator(DelayCompensation()), g, torch.ones(3), torch.ones(3))
    assert found.tolist() == g.tolist()


# ------------------------------------------------------------------ gap-aware


def steps(corrector: Corrector, weights: Tensor, moves: list[Tensor], rates: list[float]) -> None:
    for move, lr in zip(moves, rates, strict=True):
        corrector.watch([weights], [lr], NOBODY)
        weights -= lr * move
        corrector.moved([weights])


@pytest.mark.parametrize("rates", [[0.1] * 4, [0.1, 0.4, 0.2, 0.05]])
def test_the_gap_is_counted_in_steps_of_the_largest_learning_rate(rates: list[float]) -> None:
    corrector = GapPenalty(GapAware(0.9))
    weights, moves = drawn(0).double().float(), [drawn(seed) for seed in range(1, 5)]
    steps(corrector, weights, moves, rates)
    average = np.zeros(50)
    for move in moves:
        average = 0.9 * average + 0.1 * doubles(move) ** 2
    size = max(rates) * (np.sqrt(average / (1 - 0.9**4)) + 1e-8)
    g, then = drawn(9), drawn(10)
    found = corrected(corrector, g, weights, then)
    expected = doubles(g) / (1 + np.abs(doubles(weights) - doubles(then)) / size)
    np.testing.assert_allclose(doubles(found), expected, rtol=1e-4)  # a step is the difference of two float32 weights


def test_by_hand_a_gradient_is_halved_one_step_away() -> None:
    corrector = GapPenalty(GapAware())
    weights = torch.tensor([1.0, 1.0])
    steps(corrector, weights, [torch.tensor([2.0, -4.0])], [0.25])
    found = corrected(corrector, torch.tensor([8.0, 8.0]), weights, torch.tensor([1.0, 4.0]))
    assert weights.tolist() == [0.5, 2.0]
    assert found.tolist() == pytest.approx([4.0, 8.0 / 3])


def test_where_the_weights_have_not_moved_the_gradient_stays_bit_by_bit() -> None:
    corrector = GapPenalty(GapAware())
    weights = drawn(0)
    steps(corrector, weights, [drawn(1)], [0.1])
    g = torch.cat([drawn(2, 48), torch.tensor([-0.0, 1e-45])])
    assert corrected(corrector, g, weights, weights.clone()).numpy().tobytes() == g.numpy().tobytes()


def test_a_step_at_a_learning_rate_of_zero_tells_nothing() -> None:
    corrector = GapPenalty(GapAware())
    weights = drawn(0)
    steps(corrector, weights, [drawn(1)], [0.0])
    g = drawn(2)
    assert torch.equal(corrected(corrector, g, weights, weights.clone()), g)


# ------------------------------------------------------------------ parameters without a gradient


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayCompensator(DelayCompensation()),
        lambda: DelayCompensator(DelayCompensation(adaptive=True)),
        lambda: GapPenalty(GapAware()),
    ],
)
def test_a_parameter_without_a_gradient_is_left_out_of_everything(make: Callable[[], Corrector]) -> None:
    both, alone = make(), make()
    first, second = drawn(0), drawn(1)
    then = [drawn(2), drawn(3)]
    for move in (4, 5):
        both.watch([first, second], [0.1, 0.1], [0])
        alone.watch([second], [0.1], NOBODY)
        second -= 0.1 * drawn(move)
        both.moved([first, second])
        alone.moved([second])
        grads = [torch.zeros(50), drawn(move)]
        both.see(grads, [0])
        alone.see(grads[1:], NOBODY)
        expected = grads[1].clone()
        both.correct(grads, [first, second], then, [0])
        alone.correct([expected], [second], then[1:], NOBODY)
        assert torch.equal(grads[0], torch.zeros(50))
        assert torch.equal(grads[1], expected)
