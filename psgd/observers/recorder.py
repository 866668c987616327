"""The run's records in memory, for the result."""

from psgd.runlog import Evaluation, Iteration, Record, Reported


class Recorder:
    """Keeps what the result is made of.

    Attributes:
        iterations: in the order in which the driver heard of them, as are the others.
        evaluations: of the boundaries.
        reported: what the user's own loops told.
    """

    def __init__(self) -> None:
        self.iterations: list[Iteration] = []
        self.evaluations: list[Evaluation] = []
        self.reported: list[Reported] = []

    def __call__(self, record: Record) -> None:
        """Keep the record if the result needs it."""
        match record:
            case Iteration():
                self.iterations.append(record)
            case Evaluation():
                self.evaluations.append(record)
            case Reported():
                self.reported.append(record)

    def close(self) -> None:
        """Nothing to let go of."""
