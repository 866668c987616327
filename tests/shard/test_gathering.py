"""What the next update is made of, in the order in which it came."""

import numpy as np
import torch

from psgd.shard.gathering import GatheredGradients


def test_the_sum_is_taken_in_float32_in_the_order_of_arrival() -> None:
    values = [torch.tensor([1e8, 1.0]), torch.tensor([3.0, 1.0]), torch.tensor([3.0, 1.0])]
    gathered = GatheredGradients(torch.empty(2))
    for each in values:
        gathered.add(each, (), [])
    gathered.close([gathered.sum[:1]], 3.0, [gathered.sum[1:]], 3)
    a, b, c = (np.float32(each[0]) for each in values)
    assert gathered.sum[0].item() == np.float32(np.float32(a + b) + c) / np.float32(3)
    assert gathered.sum[1].item() == 1.0


def test_gradients_are_divided_by_their_weight_and_buffers_by_their_number() -> None:
    gathered = GatheredGradients(torch.empty(2))
    gathered.add(torch.tensor([3.0, 4.0]), (), [])
    gathered.add(torch.tensor([3.0, 8.0]), (), [])
    gathered.close([gathered.sum[:1]], 1.5, [gathered.sum[1:]], 2)
    assert gathered.sum.tolist() == [4.0, 6.0]


def test_absent_is_what_no_gradient_has() -> None:
    gathered = GatheredGradients(torch.empty(1))
    gathered.add(torch.zeros(1), {1, 2}, [])
    assert gathered.absent == {1, 2}
    gathered.add(torch.zeros(1), {2, 3}, [])
    assert gathered.absent == {2}


def test_counters_are_the_last_arrivals_own_copy() -> None:
    gathered = GatheredGradients(torch.empty(1))
    count = torch.tensor([7])
    gathered.add(torch.zeros(1), (), [torch.tensor([6])])
    gathered.add(torch.zeros(1), (), [count])
    count.fill_(0)
    assert [each.item() for each in gathered.counts] == [7]


def test_after_the_update_the_sum_begins_anew() -> None:
    gathered = GatheredGradients(torch.empty(1))
    gathered.add(torch.tensor([5.0]), {1}, [])
    gathered.close([gathered.sum], 1.0, [], 1)
    gathered.add(torch.tensor([2.0]), {2}, [])
    assert gathered.sum.item() == 2.0
    assert gathered.absent == {2}
