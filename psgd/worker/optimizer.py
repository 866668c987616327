"""`DistributedOptimizer`: a ``torch.optim.Optimizer`` whose update runs on the shards."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NoReturn, TypeVar, overload

import torch
from torch import Tensor
from torch.nn import Parameter

from psgd.core.ids import LEAD
from psgd.core.layout import Layout, Role
from psgd.core.messages import Receipt, Status
from psgd.errors import ConfigurationError, RunEnded
from psgd.worker.session import current

Loss = TypeVar("Loss", float, Tensor)


class DistributedOptimizer(torch.optim.Optimizer):
    """The optimizer for a training loop of your own: ``step()`` pushes the gradients and pulls the new weights.

    Which optimizer that is, and its schedule, is told to `psgd.Trainer`; it runs on the shards. The parameters get the
    job's weights at once, and hold the newest after each ``step()``, the last one included. Everything in between is
    plain PyTorch: autocast, several backward passes, clipping. One a loop, in the thread of the loop.

    Args:
        parameters: ``model.named_parameters()``, all of them, of the same model that Trainer has; the model is on
            its device already.
        buffers: ``model.named_buffers()``, needed if the model has any that its ``state_dict`` has.
        overlap: send gradients while backward computes the rest of them. For loops with one backward pass a step and
            nothing between it and ``step()``: a gradient that changes after it has left is sent again, which takes
            time. Noticed is what torch does to ``p.grad``, in place or with another tensor. What is written through
            ``p.grad.data`` or numpy is not: of that, only what had not left yet counts; without overlap, all of it.

    Raises:
        ConfigurationError: outside a training loop, or if the tensors are not those of the job's model.
        LostError: if a shard refuses the slot.

    Attributes:
        param_groups: as the job's optimizer makes them; ``lr`` is what the shards used last.

    Example:
        >>> def train_loop() -> None:
        ...     model = make_model()
        ...     optimizer = psgd.DistributedOptimizer(model.named_parameters())
        ...     for inputs, targets in psgd.batches(dataset, steps=1000):
        ...         optimizer.zero_grad()
        ...         loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        ...         loss.backward()
        ...         optimizer.step()
    """

    _complete = False

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        buffers: Iterable[tuple[str, Tensor]] = (),
        *,
        overlap: bool = False,
    ) -> None:
        session = current()
        self._parameters = _named(parameters)
        tensors = _arranged(self._parameters, dict(buffers), session.job.layout)
        device = next((parameter.device for parameter in self._parameters.values()), torch.device("cpu"))
        self._slot = session.bind(tensors, device, overlap)
        own = session.job.optimizer([(n, p) for n, p in self._parameters.items() if p.requires_grad])
        super().__init__(own.param_groups, own.defaults)
        for group in self.param_groups:
            group["lr"] = float(group["lr"])
        self._complete = True
        self._slot.open()
        self._options = self._options_now()

    # ------------------------------------------------------------------ where the slot stands

    @property
    def clock(self) -> int:
        """The iteration under way: so many are finished, since the beginning of the run."""
        return self._slot.clock

    @property
    def ended(self) -> bool:
        """Whether the run has no further iteration: the next ``step()`` would raise `RunEnded`."""
        return self._slot.ended

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The answers to the last push, indexed by shard; empty before the first."""
        return self._slot.receipts

    @property
    def last_status(self) -> Status | None:
        """What became of the last push, as the lead says; None before the first."""
        return self.receipts[LEAD].status if self.receipts else None

    @property
    def lag(self) -> int:
        """Updates that came between the last pull and its push, at the lead; 0 before the first."""
        return self.receipts[LEAD].lag if self.receipts else 0

    # ------------------------------------------------------------------ what an optimizer does

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Push the gradients, wait until every shard has answered, and pull the next weights.

        Args:
            closure: computes loss and gradients, once.

        Returns:
            What the closure returns.

        Raises:
            RunEnded: if the run has ended before; a training loop need not catch it.
            ConfigurationError: if learning rate or other options were changed here, or the model was moved.
            LostError: if a shard refuses the slot: this worker was replaced, or a shard is gone.
        """
        if self.ended:
            raise RunEnded(f"the run has ended after {self.clock} iterations: end the loop when optimizer.ended")
        self._check_options()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._slot.finish(loss.item() if isinstance(loss, Tensor) else loss)
        self._show_learning_rates()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: the shards hold what the job's model has.

        Raises:
            ConfigurationError: once the optimizer is made.
        """
        if self._complete:
            raise ConfigurationError(
                "a DistributedOptimizer takes no further parameters: the shards hold what Trainer's model has"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> NoReturn:
        """Refused: there is nothing to save here.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "the optimizer's state lies on the shards, there is none here to save: save the model's state_dict()"
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> NoReturn:
        """Refused: there is nothing to load into.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "the optimizer's state lies on the shards, none can be loaded here: start from weights with Trainer"
        )

    # ------------------------------------------------------------------ what lies elsewhere

    def _show_learning_rates(self) -> None:
        """From the first shard that used some: a shard without trainable slices has none."""
        groups = self.param_groups
        used = next((receipt.lr for receipt in self.receipts if len(receipt.lr) == len(groups)), None)
        if used is not None:
            for group, options, lr in zip(groups, self._options, used, strict=True):
                group["lr"] = options["lr"] = lr

    def _options_now(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in group.items() if name != "params"} for group in self.param_groups]

    def _check_options(self) -> None:
        """Refuse what would have no effect: options that were changed here; a schedule leaves its ``initial_lr``."""
        for number, (before, now) in enumerate(zip(self._options, self.param_groups, strict=True)):
            changed = [name for name in now if name != "params" and (name not in before or now[name] != before[name])]
            if changed:
                names = " and ".join(changed)
                raise ConfigurationError(
                    f"{names} of param_groups[{number}] changed in the loop, but learning rates and other options "
                    "live on the shards: give Trainer optimizer= and lr_scheduler= instead"
                )


def _named(parameters: Iterable[Any]) -> dict[str, Parameter]:
    named = list(parameters)
    if not all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in named):
        raise ConfigurationError("DistributedOptimizer takes parameters with names: give it model.named_parameters()")
    return dict(named)


def _arranged(parameters: Mapping[str, Parameter], buffers: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Parameters in the order in which they came, each buffer where the layout has it.

    Buffers that the layout lacks are left out: ``named_buffers()`` has those that ``state_dict()`` leaves out, too.
    """
    wanted = [spec.name for spec in layout.tensors if spec.role in (Role.BUFFER, Role.COUNTER)]
    missing = [name for name in wanted if name not in buffers]
    if missing:
        raise ConfigurationError(
            f"buffers of the job's model are missing: {', '.join(missing)}; "
            "give DistributedOptimizer buffers=model.named_buffers()"
        )
    arranged: dict[str, Tensor] = {}
    following = iter(parameters.items())
    for spec in layout.tensors:
        if spec.role in (Role.BUFFER, Role.COUNTER):
            arranged[spec.name] = buffers[spec.name]
        else:
            arranged.update(islice(following, 1))
    arranged.update(following)
    return arranged
