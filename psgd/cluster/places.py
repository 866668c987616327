"""Where each process of a job goes: into groups that the job reserves, or into one that was reserved for it."""

from contextlib import ExitStack
from typing import Any, cast

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from psgd.cluster.resources import Bundle, Need
from psgd.errors import ResourceError

PLACED_WITHIN_S = 60.0
"""Ray places within seconds what fits; a busy head node is allowed this long."""


def reserved_for(need: Need) -> PlacementGroup | None:
    """The placement group that this process runs in, if it is just what the job needs.

    That is how a trial of Ray Tune holds all that it needs from its beginning, so that no two trials wait for each
    other's half.
    """
    group = get_current_placement_group()
    return group if group is not None and _rounded(group.bundle_specs) == _rounded(need.bundles) else None


class Places:
    """Room for the shards and workers of one job.

    Args:
        need: of the job.
    """

    def __init__(self, need: Need) -> None:
        self._need = need
        self._own: list[PlacementGroup] = []
        self._shards: list[PlacementGroupSchedulingStrategy] = []
        self._workers: list[PlacementGroupSchedulingStrategy] = []

    def reserve(self) -> None:
        """Take the room that was reserved for the job, else reserve it: shards spread, workers as they are placed.

        Raises:
            ResourceError: if Ray does not find it.
        """
        need, given = self._need, reserved_for(self._need)
        if given is not None:
            places = _places(given)
            self._shards, self._workers = places[: need.shards], places[need.shards :]
            return
        self._shards = _places(self._group(need.shard_bundles, "SPREAD", "shards"))
        self._workers = _places(self._group(need.worker_bundles, need.placement.strategy, "workers"))

    def shard(self, number: int) -> PlacementGroupSchedulingStrategy:
        """The place of a shard."""
        return self._shards[number]

    def worker(self, number: int) -> PlacementGroupSchedulingStrategy:
        """The place of a worker, and of whoever replaces it."""
        return self._workers[number]

    def release(self) -> None:
        """Give back what was reserved here; what others have reserved is theirs to give back."""
        with ExitStack() as ending:  # each is tried, whatever becomes of the others
            for group in self._own:
                ending.callback(remove_placement_group, group)

    def _group(self, bundles: list[Bundle], strategy: str, whose: str) -> PlacementGroup:
        group: PlacementGroup = placement_group(bundles, strategy=strategy)
        self._own.append(group)
        if not group.wait(PLACED_WITHIN_S):
            nodes = "; ".join(str(node["Resources"]) for node in _nodes() if node["Alive"])
            raise ResourceError(
                f"Ray found no place for {len(bundles)} {whose} of {bundles[0]} each with strategy {strategy} within "
                f"{PLACED_WITHIN_S:.0f} s; its nodes have {nodes}: ask for less a process, or add nodes"
            )
        return group


def _places(group: PlacementGroup) -> list[PlacementGroupSchedulingStrategy]:
    """One a bundle."""
    return [
        PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        for index in range(group.bundle_count)
    ]


def _rounded(bundles: list[Bundle]) -> list[Bundle]:
    """As exactly as Ray keeps them."""
    return [{name: round(amount, 4) for name, amount in bundle.items()} for bundle in bundles]


def _nodes() -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], ray.nodes())  # type: ignore[no-untyped-call]  # Ray's own omission
