"""A worker's replica: the model's parameters are views of the weights' memory; its gradients go to a slot's."""

from collections.abc import Callable, Mapping

import torch

from psgd.core.layout import Layout, Role
from psgd.core.slot import Computed
from psgd.errors import ConfigurationError
from psgd.transport.flat import layout_of, views
from psgd.worker.device_weights import weights_on
from psgd.worker.gradient import SlotGradient

ASK_EVERY = 8
"""Iterations between two looks at what was written to the weights."""


class Replica:
    """The tensors of a model, bound to flat memory.

    While backward runs, each gradient that is complete moves to the slot that `aim` has named; ``.grad`` is a view of
    it there from then on, so that whatever is added to it, or done to it, happens there.

    Args:
        tensors: the model's, by name; parameters are rebound in place, to views on ``device``.
        layout: what the shards hold.
        device: where the model computes.
        memory: (layout.bytes,) uint8 on the host, where pulls land.
        find_written: as an attachment has it; asked now and then, as it takes time.

    Raises:
        ConfigurationError: if the model's tensors are not the layout's.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        layout: Layout,
        device: torch.device,
        memory: torch.Tensor,
        find_written: Callable[[], int | None] = lambda: None,
    ) -> None:
        _check(layout_of(tensors), layout)
        self.layout = layout
        self.memory = memory
        self._find_written = find_written
        self._gathered = 0
        self._weights = weights_on(device, memory, layout)
        self._views = views(self._weights.memory, layout)
        self._aim: SlotGradient | None = None
        self._leave: Callable[[str], None] | None = None
        by_role = {role: [s.name for s in layout.tensors if s.role is role] for role in Role}
        self._parameters = {name: tensors[name] for name in by_role[Role.PARAMETER]}
        self._buffers = {name: tensors[name] for name in by_role[Role.BUFFER] + by_role[Role.COUNTER]}
        self._pulled = {name: views(memory, layout)[name] for name in by_role[Role.BUFFER]}
        for name in by_role[Role.PARAMETER] + by_role[Role.FROZEN]:
            tensors[name].data = self._views[name]
        for name, parameter in self._parameters.items():
            parameter.register_post_accumulate_grad_hook(self._leaves(name))
        self._as_pulled = self._traces()

    def renew(self) -> None:
        """Take over what was pulled: parameters see it as they are views, buffers start from the shard's."""
        self._weights.renew()
        for name, buffer in self._buffers.items():
            buffer.copy_(self._views[name])
        self._as_pulled = self._traces()

    def aim(self, gradient: SlotGradient, leave: Callable[[str], None] | None = None) -> None:
        """Let what is computed from here on go to this slot's gradient.

        Args:
            leave: told the name of each parameter whose gradient has come to lie there, and is probably final.
        """
        self._aim, self._leave = gradient, leave

    def clear_gradients(self) -> None:
        """Forget the gradients: a parameter that gets none is told apart from one whose gradient is zero."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def gather(self, gradient: SlotGradient) -> Computed:
        """Complete the slot's gradient for its push, with what has not moved there by itself.

        Returns:
            Whether all of it is finite, and which parameters have no gradient (their bytes are zero).

        Raises:
            ConfigurationError: if a parameter was written in place, or moved, since it was pulled.
        """
        self._check_untouched()
        absent = []
        for index, spec in enumerate(self.layout.tensors):
            if spec.name in self._buffers:
                gradient.keep(spec.name, self._buffers[spec.name])
            elif spec.name in self._parameters:
                grad = self._parameters[spec.name].grad
                if grad is None:
                    gradient.zero(spec.name)
                    absent.append(index)
                else:
                    gradient.keep(spec.name, dense(spec.name, grad))
        finite = gradient.is_finite(self._pulled)
        self._weights.settle()  # the push's answer may bring the next ones
        return Computed(finite, tuple(absent))

    def _leaves(self, name: str) -> Callable[[torch.Tensor], None]:
        """What autograd calls when it has added to a parameter's gradient."""

        def moves(parameter: torch.Tensor) -> None:
            if self._aim is None or parameter.grad is None:
                return
            if self._leave is not None or self._aim.gathers:
                parameter.grad = self._aim.keep(name, dense(name, parameter.grad))
                if self._leave is not None:
                    for arrived in self._aim.arrived(name):
                        self._leave(arrived)

        return moves

    def _traces(self) -> dict[str, tuple[int, int]]:
        """By parameter, what a write in place or a move changes."""
        return {name: (parameter._version, parameter.data_ptr()) for name, parameter in self._parameters.items()}

    def _check_untouched(self) -> None:
        for name, (version, place) in self._traces().items():
            pulled_version, pulled_place = self._as_pulled[name]
            if place != pulled_place:
                raise ConfigurationError(
                    f"parameter {name!r} was moved since its weights were pulled: move or convert the model before "
                    "it is trained"
                )
            if version != pulled_version:
                raise ConfigurationError(
                    f"parameter {name!r} was changed in place, but its weights live on the shards: leave updates, "
                    "clipping and renormalization of weights to the optimizer that Trainer has"
                )
        if self._gathered % ASK_EVERY == 0:
            self._check_shown()
        self._gathered += 1

    def _check_shown(self) -> None:
        """What is written through ``.data`` or numpy leaves no trace in a tensor, but in the memory below it."""
        written = self._find_written()
        if written is not None:
            behind = [
                spec.name
                for index, spec in enumerate(self.layout.tensors)
                if spec.name in self._parameters and self.layout.span(index).stop > written
            ]
            raise ConfigurationError(
                f"parameter {behind[0]!r}, or one stored beside it, was changed through .data or numpy, but "
                "weights live on the shards: leave updates and clipping of them to the optimizer that Trainer has"
            )


def dense(name: str, grad: torch.Tensor) -> torch.Tensor:
    """The gradient, if it is one that flat memory can hold.

    Raises:
        ConfigurationError: if it is sparse.
    """
    if grad.layout is not torch.strided:
        raise ConfigurationError(
            f"parameter {name!r} has a sparse gradient, but shards hold dense ones: make its layer with sparse=False"
        )
    return grad


def _check(own: Layout, layout: Layout) -> None:
    """The model of this process is the one that the shards hold."""
    if own == layout:
        return
    theirs = {spec.name: spec for spec in layout.tensors}
    for spec in own.tensors:
        other = theirs.pop(spec.name, None)
        if other is None:
            raise ConfigurationError(f"tensor {spec.name!r} is not in the job's model: give Trainer the same model")
        if other != spec:
            raise ConfigurationError(
                f"tensor {spec.name!r} must be {other.role} {other.dtype}{list(other.shape)} as in the job's model, "
                f"got {spec.role} {spec.dtype}{list(spec.shape)}"
            )
    if theirs:
        names = ", ".join(theirs)
        raise ConfigurationError(f"tensors of the job's model are missing here: {names}")
    raise ConfigurationError("the model's tensors must come in the same order as in the job's model")
