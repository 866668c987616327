"""A stream of copies that a test drives by hand: the latest that a GPU could be."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class HandDrivenStream:
    """Copies are made when the test says so, or when somebody waits for them; in the order in which they began.

    Attributes:
        waits: how often somebody has waited for a copy that was not made yet.
    """

    begun: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    made: int = 0
    waits: int = 0

    def copy(self, source: Tensor, target: Tensor) -> "Place":
        self.begun.append((source, target))
        return Place(self, len(self.begun))

    def complete(self, count: int) -> None:
        """Make so many further copies, of what their sources hold now."""
        for source, target in self.begun[self.made : self.made + count]:
            target.copy_(source.detach())
            self.made += 1


@dataclass
class Place:
    """Behind the first so many copies."""

    stream: HandDrivenStream
    after: int

    def query(self) -> bool:
        return self.stream.made >= self.after

    def synchronize(self) -> None:
        if not self.query():
            self.stream.waits += 1
            self.stream.complete(self.after - self.stream.made)


class PromptStream(HandDrivenStream):
    """Copies are made at once: as they take their turn among what the model computes."""

    def copy(self, source: Tensor, target: Tensor) -> Place:
        place = super().copy(source, target)
        self.complete(1)
        return place
